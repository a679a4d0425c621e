"""3x3 convolutions in fewer multiplications: Winograd's F(4x4, 3x3), as matrix products.

A tile of 4x4 outputs comes from 6x6 inputs and takes 36 products per pair of channels in place of
144 (Lavin and Gray 2016, section 4). Transforms of all tiles are one matrix product each, and the
gradients go the same way back: the input's transform is kept for that of the weight. Outputs and
gradients lie within some 1e-6 of a direct convolution's, four times its own rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

TILE, KERNEL = 4, 3
POINTS = TILE + KERNEL - 1
_AT = (0.0, 0.75, -0.75, 1.5, -1.5)
"""Where polynomials are interpolated, and at infinity: half the rounding of 0, ±1 and ±2."""
_PRODUCTS, _TILES, _WASTE = 2048, 64, 1.4
"""From so many pairs of channels, and tiles, with so much of them inside the output at least."""


def pays(
    x: torch.Size, weight: torch.Size, stride: tuple[int, ...], padding: tuple[int, ...]
) -> bool:
    """Tell whether this is a 3x3 convolution that is faster so, as measured."""
    if weight[2:] != (KERNEL, KERNEL) or stride != (1, 1) or weight[0] * weight[1] < _PRODUCTS:
        return False
    rows, columns = _sizes(x, padding)
    tiles = Tiles.of(x[0], rows, columns).count
    return tiles >= _TILES and tiles * TILE**2 <= _WASTE * x[0] * rows * columns


def _sizes(x: torch.Size, padding: tuple[int, ...]) -> tuple[int, ...]:
    """Return the rows and columns of a convolution's output."""
    return tuple(size + 2 * p - KERNEL + 1 for size, p in zip(x[2:], padding, strict=True))


@cache
def _transforms(kind: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return what takes flattened tiles of inputs, of kernels and of products to the other side.

    Outputs are the coefficients of a product of polynomials, which is interpolated (Toom and Cook)
    at ``_AT`` and infinity.
    """
    inputs = [np.poly(np.delete(_AT, i))[::-1] for i in range(len(_AT))]
    inputs = [*(np.append(row, 0.0) for row in inputs), np.poly(_AT)[::-1]]
    others = [np.prod(at - np.delete(_AT, i)) for i, at in enumerate(_AT)]
    powers = np.power.outer(_AT, range(KERNEL))
    kernel = [*(powers / np.array(others)[:, None]), np.eye(KERNEL)[-1]]
    output = [[*np.power(_AT, k), float(k == TILE - 1)] for k in range(TILE)]
    told = (torch.tensor(np.array(matrix)) for matrix in (inputs, kernel, output))
    one, two, three = (torch.kron(matrix, matrix).to(kind) for matrix in told)
    return one, two, three


@dataclass(frozen=True)
class Tiles:
    """How images are cut: `down` times `across` tiles of outputs each, what is beyond is zero."""

    images: int
    down: int
    across: int

    @classmethod
    def of(cls, images: int, rows: int, columns: int) -> Self:
        """Return the tiles of outputs of this shape."""
        return cls(images, -(-rows // TILE), -(-columns // TILE))

    @property
    def count(self) -> int:
        """How many there are."""
        return self.images * self.down * self.across

    def inputs(self, images: Tensor) -> Tensor:
        """Return tiles of inputs, which overlap: shape (36, tiles * channels)."""
        whole, line, pixel, _ = images.stride()
        shape = (POINTS, POINTS, self.images, self.down, self.across, images.shape[3])
        strides = (line, pixel, whole, TILE * line, TILE * pixel, 1)
        return images.as_strided(shape, strides).reshape(POINTS**2, -1)

    def outputs(self, images: Tensor) -> Tensor:
        """View images of whole tiles as (4, 4, images, down, across, channels)."""
        parts = images.view(self.images, self.down, TILE, self.across, TILE, images.shape[3])
        return parts.permute(2, 4, 0, 1, 3, 5)

    def folded(self, tiles: Tensor) -> Tensor:
        """Add up tiles of inputs where they overlap: shape (images, rows, columns, channels)."""
        parts = tiles.view(POINTS, POINTS, self.images, self.down, self.across, -1)
        parts = parts.permute(2, 3, 0, 4, 1, 5)
        over = POINTS - TILE
        down, across = self.down + 1, self.across + 1
        total = tiles.new_zeros(self.images, down, TILE, across, TILE, parts.shape[5])
        total[:, :-1, :, :-1] = parts[:, :, :TILE, :, :TILE]
        total[:, 1:, :over, :-1] += parts[:, :, TILE:, :, :TILE]
        total[:, :-1, :, 1:, :over] += parts[:, :, :TILE, :, TILE:]
        total[:, 1:, :over, 1:, :over] += parts[:, :, TILE:, :, TILE:]
        return total.view(self.images, down * TILE, across * TILE, -1)


def _padded(images: Tensor, rows: int, columns: int, before: tuple[int, int] = (0, 0)) -> Tensor:
    """Return images of so many rows and columns, zero beyond; shape (n, rows, columns, c)."""
    below = rows - before[0] - images.shape[1]
    right = columns - before[1] - images.shape[2]
    if not (any(before) or below or right):
        return images.contiguous()
    return nn.functional.pad(images, (0, 0, before[1], right, before[0], below)).contiguous()


def convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return a convolution of stride 1, and what its gradients need of the input.

    Parameters
    ----------
    x : Tensor, shape (n, channels, height, width)
    weight : Tensor, shape (outputs, channels, 3, 3)
    bias : Tensor or None, shape (outputs,)
    padding : tuple of int

    Returns
    -------
    Tensor, shape (n, outputs, rows, columns)
        In channels-last order.
    Tensor, shape (36, tiles, channels)
    """
    outputs, channels = weight.shape[:2]
    rows, columns = _sizes(x.shape, padding)
    tiles = Tiles.of(len(x), rows, columns)
    over = POINTS - TILE
    whole = _padded(
        x.permute(0, 2, 3, 1), tiles.down * TILE + over, tiles.across * TILE + over, padding
    )
    inputs, kernel, output = _transforms(x.dtype)
    known = (inputs @ tiles.inputs(whole)).view(POINTS**2, -1, channels)
    products = torch.bmm(known, kernels(weight, kernel))
    made = (output @ products.view(POINTS**2, -1)).view(
        TILE, TILE, len(x), tiles.down, tiles.across, outputs
    )
    out = x.new_empty(len(x), tiles.down * TILE, tiles.across * TILE, outputs)
    place = tiles.outputs(out)
    place.copy_(made) if bias is None else torch.add(made, bias, out=place)
    return out[:, :rows, :columns].permute(0, 3, 1, 2), known


def kernels(weight: Tensor, transform: Tensor) -> Tensor:
    """Return transformed kernels: shape (36, channels, outputs)."""
    outputs, channels = weight.shape[:2]
    flat = weight.permute(2, 3, 1, 0).reshape(KERNEL**2, -1)
    return (transform @ flat).view(POINTS**2, channels, outputs)


def gradients(
    grad: Tensor, known: Tensor, weight: Tensor, padding: tuple[int, int], wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of the input and of the weight, where they are wanted.

    Parameters
    ----------
    grad : Tensor, shape (n, outputs, rows, columns)
        Of the output.
    known : Tensor
        What `convolved` returned beside it.
    weight, padding
        What it was given.
    wanted : tuple of bool
        Input, weight.
    """
    outputs, channels = weight.shape[:2]
    count, _, rows, columns = grad.shape
    tiles = Tiles.of(count, rows, columns)
    whole = _padded(grad.permute(0, 2, 3, 1), tiles.down * TILE, tiles.across * TILE)
    inputs, kernel, output = _transforms(grad.dtype)
    spread = (output.t() @ tiles.outputs(whole).reshape(TILE**2, -1)).view(POINTS**2, -1, outputs)
    x_grad = weight_grad = None
    if wanted[0]:
        products = torch.bmm(spread, kernels(weight, kernel).transpose(1, 2))
        folded = tiles.folded(inputs.t() @ products.view(POINTS**2, -1))
        high, wide = (
            size - 2 * p + KERNEL - 1 for size, p in zip((rows, columns), padding, strict=True)
        )
        top, left = padding
        x_grad = folded[:, top : top + high, left : left + wide].permute(0, 3, 1, 2)
    if wanted[1]:
        sums = torch.bmm(known.transpose(1, 2), spread).view(POINTS**2, -1)
        flat = (kernel.t() @ sums).view(KERNEL, KERNEL, channels, outputs)
        weight_grad = flat.permute(3, 2, 0, 1)
    return x_grad, weight_grad
