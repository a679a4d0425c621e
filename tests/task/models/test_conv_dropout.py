import pytest
import torch
from opacus.validators import ModuleValidator

from conf.errors import FedproofError
from task.base import ModelSpec
from task.models.conv_dropout import build


def test_shape_and_size():
    model = build({}, ModelSpec((3, 32, 32), 10))
    assert sum(p.numel() for p in model.parameters()) == 1_626_442
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert ModuleValidator.validate(model, strict=True) == []


@pytest.mark.parametrize("shape", [(3,), (1, 5, 8)])
def test_too_small(shape):
    with pytest.raises(FedproofError, match="6 pixels or more a side"):
        build({}, ModelSpec(shape, 2))
