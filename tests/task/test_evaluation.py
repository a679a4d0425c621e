import pytest
import torch
from torch import nn

from task.base import Examples
from task.evaluation import BATCH, add, evaluate
from task.objectives import Binary, MultiClass


@pytest.mark.parametrize(("objective", "width"), [(Binary(), 1), (MultiClass(3), 3)])
def test_batches_make_no_difference(objective, width):
    torch.manual_seed(0)
    rows = Examples(torch.randn(2 * BATCH + 9, 4), torch.randint(0, 2, (2 * BATCH + 9,)))
    module = nn.Sequential(nn.Linear(4, width), nn.Dropout(0.5))
    result = evaluate(module, rows, objective)
    with torch.no_grad():
        outputs = module.eval()(rows.x)
    assert result.metrics == pytest.approx(objective.metrics(outputs, rows.y), rel=1e-5)
    expected = objective.statistics(outputs, rows.y)
    assert set(result.statistics) == set(expected)
    assert result.statistics["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_sums_add_up():
    assert add({}, {"a": [1.0]}) == {"a": [1.0]}
    assert add({"a": [1.0, 2.0]}, {"a": [3.0, 4.0]}) == {"a": [4.0, 6.0]}
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        add({"a": [1.0, 2.0]}, {"a": [3.0]})
