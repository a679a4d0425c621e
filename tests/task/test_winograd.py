"""Winograd's convolutions are convolutions, and so are their gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from task import winograd
from task.kernels import accelerate


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 3), channels=st.integers(1, 5), outputs=st.integers(1, 5),
    sides=st.tuples(st.integers(3, 14), st.integers(3, 14)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)), bias=st.booleans(),
    seed=st.integers(0, 2**31),
)  # fmt: skip
def test_outputs_and_gradients_in_double_precision(
    count, channels, outputs, sides, padding, bias, seed
):
    random = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=random, dtype=torch.float64)  # noqa: E731
    x, weight = draw(count, channels, *sides).requires_grad_(), draw(outputs, channels, 3, 3)
    weight.requires_grad_()
    offset = draw(outputs) if bias else None
    expected = nn.functional.conv2d(x, weight, offset, padding=padding)
    grad = draw(*expected.shape)
    expected_grads = torch.autograd.grad(expected, (x, weight), grad)
    with torch.no_grad():
        out, known = winograd.convolved(x, weight, offset, padding)
        found = winograd.gradients(grad, known, weight, padding, (True, True))
    for ours, theirs in zip((out, *found), (expected, *expected_grads), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        assert winograd.gradients(grad, known, weight, padding, (False, False)) == (None, None)


def test_in_single_precision_rounding_stays_small():
    """The claim of the module, on the sizes of the CIFAR-10 network."""
    torch.manual_seed(0)
    x, weight = torch.randn(10, 32, 30, 30), torch.randn(64, 32, 3, 3) / 17
    exact = nn.functional.conv2d(x.double(), weight.double())
    error, direct = (
        float((found - exact).norm() / exact.norm())
        for found in (
            winograd.convolved(x, weight, None, (0, 0))[0],
            nn.functional.conv2d(x, weight),
        )
    )
    assert error < 2e-6 and error < 8 * direct


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
def test_it_is_taken_where_it_pays(layer, side, used):
    shape = torch.Size((10, layer.in_channels, side, side))
    assert winograd.pays(shape, layer.weight.shape, layer.stride, layer.padding) == used
    out = accelerate(nn.Sequential(layer))(torch.randn(shape))
    assert (type(out.grad_fn).__name__ == "_WinogradBackward") == used
