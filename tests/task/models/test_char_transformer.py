import pytest
import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch import nn

from conf.errors import FedproofError
from task.base import ModelSpec
from task.models.char_transformer import build

OPTIONS = {"width": 8, "heads": 2, "layers": 2, "dropout": 0.0}
SPEC = ModelSpec((6,), 5, vocabulary=5)


def test_sees_the_past_only_and_where_it_is():
    model = build(OPTIONS, SPEC).eval()
    x = torch.randint(0, 5, (3, 6))
    outputs = model(x)
    assert outputs.shape == (3, 6, 5)
    changed = x.clone()
    changed[:, 4] = (x[:, 4] + 1) % 5
    torch.testing.assert_close(model(changed)[:, :4], outputs[:, :4])
    assert not torch.allclose(model(changed)[:, 4:], outputs[:, 4:])
    same = model(torch.zeros(1, 6, dtype=torch.long))
    assert not torch.allclose(same[0, 0], same[0, 3])


def test_per_example_gradients_add_up():
    model = build(OPTIONS, SPEC)
    assert ModuleValidator.validate(model, strict=True) == []
    x, y = torch.randint(0, 5, (3, 6)), torch.randint(0, 5, (3, 6))

    def loss(net):
        return nn.functional.cross_entropy(net(x).transpose(1, 2), y, reduction="sum")

    loss(model).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    wrapped = GradSampleModule(model, loss_reduction="sum")
    loss(wrapped).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert parameter.grad_sample.shape[0] == 3
        torch.testing.assert_close(parameter.grad_sample.sum(0), gradient, rtol=1e-3, atol=1e-5)


def test_bad_options():
    with pytest.raises(FedproofError, match="model.heads=3 must divide model.width=8"):
        build(OPTIONS | {"heads": 3}, SPEC)
    with pytest.raises(FedproofError, match="needs sequences of symbols"):
        build(OPTIONS, ModelSpec((1, 8, 8), 5))
