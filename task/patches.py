"""The gradient of a convolution's weight as products of patch matrices (im2col)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_CACHED = 1 << 18
"""Values of a patch matrix made at once: 1 MiB, about what a core's caches hold."""


def patch_products(
    x: Tensor, grad: Tensor, shape: torch.Size, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Return the gradient of a convolution's weight.

    A patch matrix (im2col) of a few images, or a few rows of one, stays in the cache while it is
    multiplied with the gradient of the output.

    Parameters
    ----------
    x : Tensor, shape (n, channels, height, width)
        Input.
    grad : Tensor, shape (n, outputs, rows, columns)
        Gradient of the output.
    shape : torch.Size
        Of the weight: outputs, channels, kernel height, kernel width.
    stride, padding : tuple of int
        Of the convolution.
    """
    outputs, channels, tall, wide = shape
    if padding != (0, 0):
        x = nn.functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    images = x.permute(0, 2, 3, 1).contiguous()
    grads = grad.permute(0, 2, 3, 1)
    count, rows, columns = grads.shape[:3]
    run, size = wide * channels, tall * wide * channels
    many = min(count, max(1, _CACHED // (rows * columns * size)))
    step = min(rows, max(1, _CACHED // (columns * size)))
    whole, line, _, _ = images.stride()
    strides = (whole, line * stride[0], channels * stride[1], line, 1)
    total = x.new_zeros(outputs, size)
    for first in range(0, count, many):
        for top in range(0, rows, step):
            part = grads[first : first + many, top : top + step]
            left = part.reshape(-1, outputs).t()
            offset = images.storage_offset() + first * whole + top * strides[1]
            if many == stride[0] == 1:
                # Rows of patches overlap: each is copied once, and multiplied for each kernel row.
                below = part.shape[1] * columns
                needed = (part.shape[1] + tall - 1, columns, run)
                lines = images.as_strided(needed, (*strides[1:3], 1), offset).reshape(-1, run)
                for k in range(tall):
                    right = lines[k * columns : k * columns + below]
                    total[:, k * run : (k + 1) * run].addmm_(left, right)
                continue
            view = images.as_strided((*part.shape[:3], tall, run), strides, offset)
            total.addmm_(left, view.reshape(-1, size))
    return total.view(outputs, tall, wide, channels).permute(0, 3, 1, 2)
