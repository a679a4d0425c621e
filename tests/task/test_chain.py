"""Written-out passes compute what torch's layers and automatic differentiation compute."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from conf.schema import Optimizer, TrainConfig
from task.base import Examples, ModelSpec
from task.chain import chain_of
from task.flat import FlatModel
from task.kernels import accelerate
from task.models import conv_dropout, lenet
from task.objectives import MultiClass
from task.training import train

NUMBERS = st.integers(1, 4)


@st.composite
def narrow(draw):
    """A chain of convolutions with few channels."""
    layers, channels = [], draw(st.integers(1, 2))
    first = channels
    for _ in range(draw(st.integers(1, 2))):
        outputs, kernel = draw(NUMBERS), (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        stride, padding = (
            draw(st.integers(1, 2)),
            (draw(st.integers(0, 2)), draw(st.integers(0, 2))),
        )
        layers.append(
            nn.Conv2d(channels, outputs, kernel, stride, padding, bias=draw(st.booleans()))
        )
        layers += [nn.ReLU()] if draw(st.booleans()) else []
        channels = outputs
    layers += [nn.MaxPool2d(2, draw(st.integers(1, 2)))] if draw(st.booleans()) else []
    return layers, (first, draw(st.integers(11, 14)), draw(st.integers(11, 14)))


@st.composite
def wide(draw):
    """A chain of 3×3 convolutions with many channels after the first."""
    padding = draw(st.sampled_from([0, 1, (0, 1)]))
    bias = draw(st.booleans())
    layers = [nn.Conv2d(2, 32, draw(st.integers(1, 3))), nn.ReLU()]
    layers += [nn.Conv2d(32, 33, 3, padding=padding, bias=bias), nn.MaxPool2d(2), nn.ReLU()]
    layers += [nn.Conv2d(33, 32, 3, padding=1)] if draw(st.booleans()) else []
    return layers, (2, draw(st.integers(7, 13)), draw(st.integers(7, 13)))


@st.composite
def dense(draw):
    """A chain of dense layers alone, on rows or on images."""
    return [], draw(st.sampled_from([(5,), (2, 3, 2)]))


def finished(layers, shape, width):
    """End a chain in dense layers; in double precision."""
    if len(shape) > 1:
        layers = [*layers, nn.Flatten()]
    inputs = nn.Sequential(*layers)(torch.zeros(1, *shape)).shape[1]
    hidden = [nn.Linear(inputs, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Sequential(*hidden), nn.Linear(width, 3)).double()


@settings(max_examples=60, deadline=None)
@given(st.one_of(narrow(), wide(), dense()), NUMBERS, NUMBERS, st.integers(0, 99))
def test_outputs_gradients_and_steps_are_those_of_autograd(network, width, count, seed):
    torch.manual_seed(seed)
    module = finished(*network, width)
    plain, fast = FlatModel(copy.deepcopy(module)), FlatModel(accelerate(module))
    x = torch.randn(count, *network[1], dtype=torch.float64)
    y = torch.randint(0, 3, (count,))
    expected = plain.module(x)
    functional.cross_entropy(expected, y).backward()
    derivative = MultiClass(3).gradient(expected.detach(), y)[1] / count
    chain = chain_of(fast.module, x)
    torch.testing.assert_close(chain.forward(x.clone()), expected.detach(), rtol=1e-9, atol=1e-9)
    chain.backward(derivative.clone())
    torch.testing.assert_close(fast.gradient, plain.gradient, rtol=1e-9, atol=1e-9)
    before = fast.vector.detach().clone()
    chain.forward(x.clone())
    chain.backward(derivative.clone(), rate=0.5)
    stepped = before - 0.5 * plain.gradient
    torch.testing.assert_close(fast.vector.detach(), stepped, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("build", [lenet.build, conv_dropout.build])
def test_in_single_precision_gradients_are_close(build):
    torch.manual_seed(0)
    module = build({}, ModelSpec((1, 28, 28), 10))
    module = nn.Sequential(*(layer for layer in module if not isinstance(layer, nn.Dropout)))
    exact, fast = FlatModel(copy.deepcopy(module).double()), FlatModel(accelerate(module))
    x, y = torch.randn(8, 1, 28, 28), torch.randint(0, 10, (8,))
    functional.cross_entropy(exact.module(x.double()), y).backward()
    chain = chain_of(fast.module, x)
    derivative = MultiClass(10).gradient(chain.forward(x), y)[1] / 8
    chain.backward(derivative)
    assert (fast.gradient - exact.gradient).norm() <= 1e-5 * exact.gradient.norm()


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(batch_size=4, lr=0.1),
        TrainConfig(batch_size=4, lr=0.1, momentum=0.9),
        TrainConfig(batch_size=4, lr=0.1, max_grad_norm=0.1),
        TrainConfig(batch_size=4, lr=0.01, optimizer=Optimizer.adam),
    ],
)
def test_every_optimiser_trains_the_same_model(config):
    torch.manual_seed(0)
    module = lenet.build({}, ModelSpec((1, 16, 16), 3))
    plain, fast = FlatModel(copy.deepcopy(module)), FlatModel(accelerate(module))
    examples = Examples(torch.randn(9, 1, 16, 16), torch.randint(0, 3, (9,)))
    assert chain_of(plain.module, examples.x) is None
    results = [train(m, examples, MultiClass(3), config, seed=5) for m in (plain, fast)]
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-5)
    torch.testing.assert_close(fast.vector, plain.vector, rtol=1e-4, atol=1e-6)


def test_dropout_drops_the_same_in_both_passes():
    torch.manual_seed(0)
    model = FlatModel(
        accelerate(nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 1)))
    )
    x = torch.randn(1, 4)
    chain = chain_of(model.module, x)
    chain.forward(x)
    chain.backward(torch.ones(1, 1))
    last, first = model.module[2].weight.grad, model.module[0].bias.grad
    dropped = last.view(-1) == 0
    assert 10 < int(dropped.sum()) < 54 and torch.equal(first == 0, dropped)


def test_what_is_not_a_chain_is_left_to_autograd():
    x = torch.randn(2, 1, 12, 12)
    shared, frozen, hooked = nn.Linear(144, 144), nn.Linear(144, 2), nn.Linear(144, 2)
    frozen.bias.requires_grad_(False)
    hooked.register_forward_hook(lambda *_: None)
    others = [
        nn.Sequential(nn.Flatten(), shared, shared),
        nn.Sequential(nn.Flatten(), frozen),
        nn.Sequential(nn.Flatten(), hooked),
        nn.Sequential(nn.Flatten(), nn.Linear(144, 4), nn.Sigmoid(), nn.Linear(4, 2)),
        nn.Sequential(nn.Conv2d(1, 16, 3), nn.Conv2d(16, 9, 3), nn.Flatten(), nn.Linear(576, 2)),
        nn.Sequential(nn.Linear(12, 2), nn.Flatten()),
        nn.Sequential(nn.Flatten(), nn.Linear(144, 2).double()),
    ]
    for module in others:
        assert chain_of(accelerate(module), x) is None
    assert chain_of(nn.Sequential(nn.Flatten(), nn.Linear(144, 2)), x) is None
    assert chain_of(accelerate(nn.Sequential(nn.Flatten(), nn.Linear(144, 2))), x) is not None
