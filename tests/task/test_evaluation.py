import pytest
import torch
from torch import nn

from task.base import Examples
from task.evaluation import BATCH, add, evaluate, plausible
from task.objectives import Binary, MultiClass, NextToken, Regression


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


@pytest.mark.parametrize("objective", [Binary(), MultiClass(3), NextToken(), Regression()])
def test_sums_of_rows_are_plausible_and_others_are_not(objective):
    if isinstance(objective, NextToken):
        outputs, targets = torch.randn(5, 7, 4), torch.randint(4, (5, 7))
    elif isinstance(objective, MultiClass):
        outputs, targets = torch.randn(5, 3), torch.randint(3, (5,))
    else:
        outputs, targets = torch.randn(5, 1), torch.randint(2, (5,)).float()
    sums = objective.statistics(outputs, targets)
    assert plausible(objective, sums, 5) and plausible(objective, sums, None)
    assert plausible(objective, add(sums, sums), 10)
    assert not objective.rows or not plausible(objective, sums, 6)
    for name in sums:
        # One that is missing, owed, beyond all numbers, or no count.
        spoilt = [{k: v for k, v in sums.items() if k != name}, {**sums, name: [1e101]}]
        spoilt += [{**sums, name: [-1.0] * len(sums[name])}] if name != "target" else []
        spoilt += [{**sums, name: [0.5] * len(sums[name])}] if name in objective.counts else []
        for told in spoilt:
            assert not plausible(objective, told, None), (name, told)
