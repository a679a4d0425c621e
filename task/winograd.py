"""The gradient of a 3x3 convolution's weight in fewer multiplications, as matrix products.

It is a convolution itself, of the input with the gradient of the output. Winograd's F(3x3, 4x4)
cuts it into tiles of 4x4 outputs and the 6x6 inputs that they come from, which take 36 products
per pair of channels in place of 144 (Lavin and Gray 2016, section 4), and transforms, which are
matrix products as well. Gradients lie within some 1e-6 of the direct ones.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

TILE, KERNEL = 4, 3
POINTS = TILE + KERNEL - 1
_AT = (0.0, 0.75, -0.75, 1.5, -1.5)
"""Where polynomials are interpolated, and at infinity: half the rounding of 0, ±1 and ±2."""
_CHANNELS, _TILES, _WASTE = 32, 64, 1.4
"""From so many channels and outputs, and tiles, that cover at most so many times the output."""
_CACHED = 1 << 18
"""Transformed values at once: 1 MiB, about what a core's caches hold."""


def pays(
    x: torch.Size, weight: torch.Size, stride: tuple[int, ...], padding: tuple[int, ...]
) -> bool:
    """Tell whether this is a 3x3 convolution whose gradient is faster so, as measured."""
    if weight[2:] != (KERNEL, KERNEL) or stride != (1, 1) or min(weight[:2]) < _CHANNELS:
        return False
    rows, columns = (size + 2 * p - KERNEL + 1 for size, p in zip(x[2:], padding, strict=True))
    tiles = x[0] * -(-rows // TILE) * -(-columns // TILE)
    return tiles >= _TILES and tiles * TILE**2 <= _WASTE * x[0] * rows * columns


def weight_gradient(x: Tensor, grad: Tensor, padding: tuple[int, ...]) -> Tensor:
    """Return the gradient of the weight of a convolution of stride 1.

    Parameters
    ----------
    x : Tensor, shape (n, channels, height, width)
        Input.
    grad : Tensor, shape (n, outputs, rows, columns)
        Gradient of the output.
    padding : tuple of int
        Of the convolution.

    Returns
    -------
    Tensor, shape (outputs, channels, 3, 3)
    """
    count, outputs, rows, columns = grad.shape
    channels, down, across = x.shape[1], -(-rows // TILE), -(-columns // TILE)
    over = POINTS - TILE
    images = _padded(x, (TILE * down + over, TILE * across + over), padding)
    grads = _padded(grad, (TILE * down, TILE * across), (0, 0))
    of_inputs, of_grads, of_sums = _transforms(x.dtype)
    total = x.new_zeros(POINTS**2, channels, outputs)
    many = max(1, _CACHED // (POINTS**2 * down * across * (channels + outputs)))
    whole, line, pixel, _ = images.stride()
    strides = (line, pixel, whole, TILE * line, TILE * pixel, 1)
    for first in range(0, count, many):
        part = grads[first : first + many]
        tiles = part.view(len(part), down, TILE, across, TILE, outputs).permute(2, 4, 0, 1, 3, 5)
        shape = (POINTS, POINTS, len(part), down, across, channels)
        inputs = images.as_strided(shape, strides, images.storage_offset() + first * whole)
        left = (of_inputs @ inputs.reshape(POINTS**2, -1)).view(POINTS**2, -1, channels)
        right = (of_grads @ tiles.reshape(TILE**2, -1)).view(POINTS**2, -1, outputs)
        total.baddbmm_(left.transpose(1, 2), right)
    sums = of_sums @ total.view(POINTS**2, -1)
    return sums.view(KERNEL, KERNEL, channels, outputs).permute(3, 2, 0, 1)


def _padded(images: Tensor, sides: tuple[int, int], before: tuple[int, ...]) -> Tensor:
    """Return images with zeros around them, so many rows and columns: (n, rows, columns, c)."""
    images = images.permute(0, 2, 3, 1)
    below, right = (
        side - first - size
        for side, first, size in zip(sides, before, images.shape[1:3], strict=True)
    )
    if any((*before, below, right)):
        images = nn.functional.pad(images, (0, 0, before[1], right, before[0], below))
    return images.contiguous()


@cache
def _transforms(kind: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the matrices for flattened tiles of inputs, of gradients, and for their products.

    The coefficients of a polynomial with given values (Toom and Cook) at ``_AT`` and infinity.
    """
    inputs = [np.poly(np.delete(_AT, i))[::-1] for i in range(len(_AT))]
    inputs = [*(np.append(row, 0.0) for row in inputs), np.poly(_AT)[::-1]]
    others = np.array([np.prod(at - np.delete(_AT, i)) for i, at in enumerate(_AT)])
    sums = [*(np.power.outer(_AT, range(KERNEL)) / others[:, None]), np.eye(KERNEL)[-1]]
    grads = [*np.power.outer(_AT, range(TILE)), np.eye(TILE)[-1]]
    told = (torch.tensor(np.array(matrix)) for matrix in (inputs, grads, np.transpose(sums)))
    one, two, three = (torch.kron(matrix, matrix).to(kind) for matrix in told)
    return one, two, three
