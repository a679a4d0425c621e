import pytest
import torch
from opacus.validators import ModuleValidator

from conf.errors import FedproofError
from task.base import ModelSpec
from task.models.lenet import build


def test_parameters_are_those_of_niid_bench():
    model = build({}, ModelSpec((1, 28, 28), 10))
    assert [tuple(p.shape) for p in model.parameters() if p.ndim > 1] == [
        (6, 1, 5, 5),
        (16, 6, 5, 5),
        (120, 256),
        (84, 120),
        (10, 84),
    ]
    assert sum(p.numel() for p in model.parameters()) == 44_426


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 28, 28), (3, 32, 32)])
def test_outputs_and_privacy(shape):
    model = build({}, ModelSpec(shape, 62))
    assert model(torch.randn(2, *shape)).shape == (2, 62)
    assert ModuleValidator.validate(model, strict=True) == []


@pytest.mark.parametrize("shape", [(1, 8, 8), (128, 6)])
def test_refuses_small_images(shape):
    with pytest.raises(FedproofError, match="16 pixels or more"):
        build({}, ModelSpec(shape, 10))
