import pytest
import torch
from torch import nn

from task import patches
from task.patches import patch_products


@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 2)])
@pytest.mark.parametrize("cached", [1 << 18, 500])
def test_patch_products_are_the_weights_gradient(stride, padding, cached, monkeypatch):
    # The small cache takes few rows of one image at a time, the large one several images.
    monkeypatch.setattr(patches, "_CACHED", cached)
    torch.manual_seed(0)
    x = torch.randn(3, 4, 11, 9).to(memory_format=torch.channels_last)
    weight = torch.randn(5, 4, 3, 2, requires_grad=True)
    out = nn.functional.conv2d(x, weight, stride=stride, padding=padding)
    grad = torch.randn_like(out)
    (expected,) = torch.autograd.grad(out, weight, grad)
    found = patch_products(x, grad, weight.shape, stride, padding)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
