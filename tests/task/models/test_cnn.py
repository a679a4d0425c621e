import pytest
import torch
from opacus.validators import ModuleValidator

from conf.errors import FedproofError
from task.base import ModelSpec
from task.models.cnn import build

OPTIONS = {"channels": [16, 32], "groups": 8, "hidden": 64}


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_outputs_and_privacy(shape):
    model = build(OPTIONS, ModelSpec(shape, 10))
    assert model(torch.randn(5, *shape)).shape == (5, 10)
    assert ModuleValidator.validate(model, strict=True) == []


def test_examples_do_not_mix():
    model = build(OPTIONS, ModelSpec((1, 8, 8), 10))
    x = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(model(x)[:1], model(x[:1]))


@pytest.mark.parametrize("shape", [(10,), (1, 3, 8)])
def test_refuses_what_it_cannot_pool(shape):
    with pytest.raises(FedproofError, match="model cnn with 2 poolings needs images"):
        build(OPTIONS, ModelSpec(shape, 10))
