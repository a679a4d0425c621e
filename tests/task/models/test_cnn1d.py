import pytest
import torch
from opacus.validators import ModuleValidator

from conf.errors import FedproofError
from task.base import ModelSpec
from task.models.cnn1d import build

OPTIONS = {"channels": [32, 64, 64], "kernel": 5, "groups": 8, "dropout": 0.2}


@pytest.mark.parametrize("shape", [(128, 6), (4, 1)])
def test_outputs_and_privacy(shape):
    model = build(OPTIONS, ModelSpec(shape, 6))
    assert model(torch.randn(5, *shape)).shape == (5, 6)
    assert ModuleValidator.validate(model, strict=True) == []


def test_convolves_over_time():
    model = build(OPTIONS | {"channels": [8]}, ModelSpec((128, 6), 6)).eval()
    x = torch.zeros(2, 128, 6)
    x[0, 40, 2] = x[1, 80, 2] = 5.0
    # One block and a mean over time: when it happens makes no difference, where it does, does.
    outputs = model(x)
    torch.testing.assert_close(outputs[0], outputs[1])
    assert not torch.allclose(model(x.roll(1, dims=2)), outputs)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 6)])
def test_refuses_what_is_no_window(shape):
    with pytest.raises(FedproofError, match="model cnn1d with 3 blocks needs windows"):
        build(OPTIONS, ModelSpec(shape, 6))
