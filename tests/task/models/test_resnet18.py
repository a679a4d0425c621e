from functools import partial

import pytest
import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch import nn
from torchvision.models import resnet18

from conf.errors import FedproofError
from task.base import ModelSpec
from task.models.resnet18 import build

OPTIONS = {"groups": 32}


def test_equals_torchvision_but_for_the_stem():
    model = build(OPTIONS, ModelSpec((3, 32, 32), 10))
    reference = resnet18(num_classes=10, norm_layer=partial(nn.GroupNorm, 32))
    reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    reference.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(x), reference(x))


def test_weights_start_as_in_torchvision():
    torch.manual_seed(0)
    reference = resnet18(num_classes=10).state_dict()
    for key, value in build(OPTIONS, ModelSpec((3, 32, 32), 10)).state_dict().items():
        if key != "conv1.weight" and value.std() > 0:
            torch.testing.assert_close(value.std(), reference[key].std(), rtol=0.1, atol=0.005)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_outputs_and_privacy(shape):
    model = build(OPTIONS, ModelSpec(shape, 10))
    assert model(torch.randn(2, *shape)).shape == (2, 10)
    assert ModuleValidator.validate(model, strict=True) == []


def test_per_example_gradients_add_up_to_the_gradient():
    torch.manual_seed(0)
    model = build(OPTIONS, ModelSpec((1, 8, 8), 10))
    x, y = torch.randn(3, 1, 8, 8), torch.tensor([1, 2, 3])
    nn.functional.cross_entropy(model(x), y, reduction="sum").backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    wrapped = GradSampleModule(model, loss_reduction="sum")
    nn.functional.cross_entropy(wrapped(x), y, reduction="sum").backward()
    for name, parameter in model.named_parameters():
        total = parameter.grad_sample.sum(0)
        torch.testing.assert_close(total, expected[name], rtol=1e-3, atol=1e-4)


def test_refuses_what_is_no_image():
    with pytest.raises(FedproofError, match="model resnet18 needs images"):
        build(OPTIONS, ModelSpec((13,), 1))
