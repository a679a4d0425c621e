"""Winograd's weight gradient is the convolution's, and taken where it pays."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from task import winograd
from task.kernels import accelerate


def direct(x, grad, padding):
    """Return torch's own weight gradient."""
    weight = x.new_zeros(grad.shape[1], x.shape[1], 3, 3, requires_grad=True)
    nn.functional.conv2d(x, weight, padding=padding).backward(grad)
    return weight.grad


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 5), channels=st.integers(1, 5), outputs=st.integers(1, 5),
    sides=st.tuples(st.integers(3, 14), st.integers(3, 14)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    at_once=st.sampled_from([1, 4, 128]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_it_is_the_gradient(count, channels, outputs, sides, padding, at_once, seed):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(count, channels, *sides, generator=random, dtype=torch.float64)
    out = [side + 2 * p - 2 for side, p in zip(sides, padding, strict=True)]
    grad = torch.randn(count, outputs, *out, generator=random, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "_ROW", at_once)
        found = winograd.weight_gradient(x, grad, padding)
    torch.testing.assert_close(found, direct(x, grad, padding), rtol=1e-9, atol=1e-9)


def test_in_single_precision_rounding_stays_small():
    """The claim of the module, on the sizes of the CIFAR-10 network."""
    torch.manual_seed(0)
    x, grad = torch.randn(10, 32, 30, 30), torch.randn(10, 64, 28, 28)
    exact = direct(x.double(), grad.double(), (0, 0))
    error = (winograd.weight_gradient(x, grad, (0, 0)) - exact).norm() / exact.norm()
    assert error < 2e-6


def test_several_threads_are_left_to_torch():
    shape = torch.Size((64, 32, 3, 3))
    assert winograd.covers(shape, (1, 1))
    torch.set_num_threads(2)
    try:
        assert not winograd.covers(shape, (1, 1))
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("layer", "side", "used"),
    [
        (nn.Conv2d(32, 64, 3), 30, True),
        (nn.Conv2d(64, 64, 3, padding=1), 16, True),
        (nn.Conv2d(16, 32, 3, padding=1), 30, False),
        (nn.Conv2d(32, 64, 5), 30, False),
        (nn.Conv2d(32, 64, 3, stride=2), 30, False),
        (nn.Conv2d(32, 64, 3), 7, False),
    ],
)
def test_it_is_taken_where_it_pays(layer, side, used, monkeypatch):
    taken = []
    compute = winograd.weight_gradient
    monkeypatch.setattr(
        winograd, "weight_gradient", lambda *args: taken.append(args) or compute(*args)
    )
    x = torch.randn(10, layer.in_channels, side, side)
    accelerate(nn.Sequential(layer))(x).sum().backward()
    assert bool(taken) == used
