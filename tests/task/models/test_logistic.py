import pytest
import torch

from task.base import ModelSpec
from task.models.logistic import build


@pytest.mark.parametrize(("shape", "outputs"), [((13,), 1), ((28, 28), 10)])
def test_is_one_linear_layer(shape, outputs):
    model = build({}, ModelSpec(shape, outputs))
    weight, bias = model.parameters()
    x = torch.randn(6, *shape)
    assert weight.shape == (outputs, x[0].numel())
    torch.testing.assert_close(model(x), x.reshape(6, -1) @ weight.T + bias)


def test_starts_as_torch_and_so_flamby_would():
    torch.manual_seed(42)
    weight, bias = build({}, ModelSpec((13,), 1)).parameters()
    torch.manual_seed(42)
    layer = torch.nn.Linear(13, 1)
    assert torch.equal(weight, layer.weight)
    assert torch.equal(bias, layer.bias)
