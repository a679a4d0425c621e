"""3x3 convolutions of stride 1, and their gradients, in fewer multiplications.

Winograd's F(4x4, 3x3) cuts outputs into tiles of 4x4 and the 6x6 inputs that they come from, which
take 36 products per pair of channels in place of 144 (Lavin and Gray 2016, section 4), and
transforms before and after (`task.tiles`). Gradients lie within some 1e-6 of the direct ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from task.products import even, quietly
from task.tiles import KERNEL, TILE, Tiles

_CHANNELS, _TILES, _WASTE = 32, 64, 1.4
"""From so many channels and outputs, and tiles, that cover at most so many times the output."""
_ROW = 128
"""Tiles next to each other at once, of several images, which a core's caches hold."""


def covers(weight: torch.Size, stride: tuple[int, ...]) -> bool:
    """Tell whether this is a 3x3 convolution with channels enough to make up for transforms.

    All of it runs on one thread; torch's own convolutions make use of several.
    """
    fits = weight[2:] == (KERNEL, KERNEL) and stride == (1, 1) and min(weight[:2]) >= _CHANNELS
    return fits and torch.get_num_threads() == 1


def pays(
    x: torch.Size, weight: torch.Size, stride: tuple[int, ...], padding: tuple[int, ...]
) -> bool:
    """Tell whether this is a 3x3 convolution whose gradient is faster so, as measured."""
    if not covers(weight, stride):
        return False
    rows, columns = (size + 2 * p - KERNEL + 1 for size, p in zip(x[2:], padding, strict=True))
    tiles = x[0] * -(-rows // TILE) * -(-columns // TILE)
    return tiles >= _TILES and tiles * TILE**2 <= _WASTE * x[0] * rows * columns


@quietly
def weight_gradient(x: Tensor, grad: Tensor, padding: tuple[int, ...]) -> Tensor:
    """Return the gradient of the weight of a convolution.

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
    many = even(len(x), max(1, _ROW // -(-grad.shape[3] // TILE)))
    total = x.new_zeros(grad.shape[1], x.shape[1], KERNEL, KERNEL)
    for images, gradients in zip(torch.split(x, many), torch.split(grad, many), strict=True):
        tiles = Tiles(images.permute(2, 3, 0, 1), padding)
        total += tiles.gradients(gradients.permute(2, 3, 0, 1), None).weight
    return total
