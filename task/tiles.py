"""Tiles of images, transformed for Winograd's algorithm (`task.winograd`).

Transforms are products with small matrices along lines and then along columns, like all the rest
(`task.products`).
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from task.products import Matrices, multiply

TILE, KERNEL = 4, 3
POINTS = TILE + KERNEL - 1
_AT = (0.0, 0.75, -0.75, 1.5, -1.5)
"""Where polynomials are interpolated, and at infinity: half the rounding of 0, ±1 and ±2."""


class Kernels(NamedTuple):
    """Transformed kernels, one matrix per point, in both orders."""

    forward: Matrices
    backward: Matrices


def transformed(weight: Tensor) -> Kernels:
    """Return transformed kernels, shape (points, channels, outputs) and with these exchanged."""
    flat = _transforms(weight.dtype).kernels @ weight.detach().reshape(-1, KERNEL**2).t()
    backward = flat.view(POINTS**2, *weight.shape[:2]).numpy()
    return Kernels(np.ascontiguousarray(backward.transpose(0, 2, 1)), backward)


class Gradients(NamedTuple):
    """The gradients of a convolution.

    Attributes
    ----------
    weight : Tensor, shape (outputs, channels, 3, 3)
    bias : Tensor, shape (outputs,)
    input : Tensor, shape (height, width, n, channels), or None
        Lines of pixels may lie apart.
    """

    weight: Tensor
    bias: Tensor
    input: Tensor | None


class Tiles:
    """Transformed tiles of images, which a convolution and its gradients share.

    With the transforms B of inputs, A of gradients of outputs, and G of kernels, outputs are
    Aᵀ[(B x) ⊙ (G w)], and the gradients Bᵀ[(A g) ⊙ (G w)] and Gᵀ[(B x) ⊙ (A g)]: B x and A g serve
    twice. ⊙ multiplies matrices, one per point. Images have their pixels first, so that a pixel is
    a run of images times channels. A row of tiles goes through all of it before the next one does,
    so that it stays in a core's cache.

    Parameters
    ----------
    x : Tensor, shape (height, width, n, channels)
        Input.
    padding : tuple of int
        Of the convolution.
    """

    def __init__(self, x: Tensor, padding: tuple[int, ...]) -> None:
        self._size, self._padding = x.shape, padding
        self._out = [s + 2 * p - KERNEL + 1 for s, p in zip(x.shape[:2], padding, strict=True)]
        self._tiles = down, across = [-(-side // TILE) for side in self._out]
        self._matrices = _transforms(x.dtype)
        x = _placed(x, [TILE * tiles + KERNEL - 1 for tiles in self._tiles], padding)
        line, run = x.stride()[:2]
        between = x.new_empty(POINTS, line)
        inputs = x.new_empty(down, POINTS, POINTS, across, run)
        pixels = (down, line // run, POINTS, run), (TILE * line, run, line, 1)
        columns = (POINTS, across, POINTS, run), (line, TILE * run, run, 1)
        transform = _Transform(
            self._matrices.inputs,
            x.as_strided(*pixels).numpy(),
            between.view(POINTS, -1, run).transpose(0, 1).numpy(),
            between.as_strided(*columns).numpy(),
            inputs.transpose(2, 3).numpy(),
        )
        for row in range(down):
            transform(row)
        self._inputs = inputs.view(down, *self._points(x.shape[3])).numpy()

    def outputs(self, kernels: Kernels, bias: Tensor | None) -> Tensor:
        """Return the outputs, shape (rows, columns, n, outputs), for `transformed` kernels."""
        down, across = self._tiles
        count, outputs = self._size[2], kernels.forward.shape[2]
        kind = torch.from_numpy(kernels.forward).dtype
        products = torch.empty(self._points(outputs), dtype=kind)
        between = torch.empty(TILE, POINTS, across, count * outputs, dtype=kind)
        out = torch.empty(TILE * down, TILE * across, count, outputs, dtype=kind)
        by_row = products.view(POINTS, POINTS, -1).transpose(0, 1)
        transform = _Transform(
            self._matrices.outputs,
            by_row.expand(down, -1, -1, -1).numpy(),
            between.flatten(2).transpose(0, 1).numpy(),
            between.transpose(1, 2).numpy(),
            out.view(down, TILE, across, TILE, -1).numpy(),
        )
        for row in range(down):
            multiply(self._inputs[row], kernels.forward, products.numpy())
            transform(row)
        out = out[: self._out[0], : self._out[1]]
        if bias is None:
            return out.contiguous()
        return out.add_(bias) if out.is_contiguous() else out + bias

    def gradients(self, gradient: Tensor, kernels: Kernels | None) -> Gradients:
        """Return the gradients, that of the input for `transformed` kernels only."""
        (down, across), channels, outputs = self._tiles, self._size[3], gradient.shape[3]
        gradient = _placed(gradient, [TILE * tiles for tiles in self._tiles], (0, 0))
        between = gradient.new_empty(POINTS, across, TILE, gradient.stride(1))
        points = gradient.new_empty(POINTS, POINTS, across, gradient.stride(1))
        transform = _Transform(
            self._matrices.gradients,
            gradient.view(down, TILE, across, -1).transpose(1, 2).numpy(),
            between.flatten(2).transpose(0, 1).numpy(),
            between.numpy(),
            points.transpose(1, 2).expand(down, -1, -1, -1, -1).numpy(),
        )
        at = points.view(self._points(outputs)).numpy()
        lines = gradient.view(down, -1, gradient.stride(1)).numpy()
        total = np.zeros((POINTS**2, outputs, channels), at.dtype)
        part, bias = np.empty_like(total), np.zeros_like(lines[0, 0])
        below = None if kernels is None else _Below(self._tiles, gradient, self._size[2:])
        for row in range(down):
            transform(row)
            multiply(at.transpose(0, 2, 1), self._inputs[row], part)
            total += part
            bias += lines[row].sum(0)
            if kernels is not None and below is not None:
                below.add(row, at, kernels.backward)
        sums = self._matrices.sums @ torch.from_numpy(total).view(POINTS**2, -1)
        weight = sums.view(KERNEL, KERNEL, outputs, channels).permute(2, 3, 0, 1)
        (top, left), (height, width) = self._padding, self._size[:2]
        place = slice(top, top + height), slice(left, left + width)
        return Gradients(
            weight,
            torch.from_numpy(bias).view(-1, outputs).sum(0),
            None if below is None else below.finished()[place],
        )

    def _points(self, channels: int) -> tuple[int, int, int]:
        """Return the shape of what is multiplied for a row of tiles."""
        return POINTS**2, self._tiles[1] * self._size[2], channels


class _Below:
    """The gradient of the input, which grows by a row of tiles at a time.

    What a tile hands down is larger by two lines than its place, and these lie on those of the next
    tile. So each four lines come from two tiles, by one product: `_Matrices.below`. Zeros stand for
    the tiles before the first and after the last one.
    """

    def __init__(self, tiles: list[int], like: Tensor, pixel: torch.Size) -> None:
        down, across = tiles
        count, channels = pixel
        run, line = count * channels, across * count * channels
        matrix = POINTS * line
        products = like.new_empty(down + 2, POINTS, POINTS, line)
        products[0].zero_()
        products[-1].zero_()
        between = like.new_zeros(TILE, across + 2, POINTS, run)
        whole = between.stride(0)
        self._total = like.new_empty(TILE * (down + 1), TILE * (across + 1), count, channels)
        self._transform = _Transform(
            _transforms(like.dtype).below,
            products.as_strided(
                (down + 1, POINTS, across, 2 * POINTS, run),
                (POINTS * matrix, line, run, matrix, 1),
            ).numpy(),
            between[:, 1:-1].permute(2, 1, 0, 3).numpy(),
            between.as_strided(
                (TILE, across + 1, 2 * POINTS, run), (whole, POINTS * run, run, 1)
            ).numpy(),
            self._total.view(down + 1, TILE, across + 1, TILE, run).numpy(),
        )
        self._products = products[1:].view(down + 1, POINTS**2, -1, channels).numpy()

    def add(self, row: int, at: Matrices, kernels: Matrices) -> None:
        """Take the transformed gradient of a row of tiles."""
        multiply(at, kernels, self._products[row])
        self._transform(row)

    def finished(self) -> Tensor:
        """Return it, and more lines and columns behind it."""
        self._transform(len(self._products) - 1)
        return self._total


class _Transform(NamedTuple):
    """A transform of the lines of a row of tiles, and then of their columns.

    Attributes
    ----------
    matrix : ndarray
        What both are multiplied with.
    source : ndarray
        Stacks of lines of pixels, by row of tiles.
    written, read : ndarray
        The same memory as lines, and as columns.
    target : ndarray
        Stacks of columns, by row of tiles.
    """

    matrix: Matrices
    source: Matrices
    written: Matrices
    read: Matrices
    target: Matrices

    def __call__(self, row: int) -> None:
        """Transform a row of tiles."""
        multiply(self.matrix, self.source[row], self.written)
        multiply(self.matrix, self.read, self.target[row])


def _placed(images: Tensor, sides: list[int], before: tuple[int, ...]) -> Tensor:
    """Return images, pixels first, with zeros around them, so many rows and columns."""
    after = [s - b - size for s, b, size in zip(sides, before, images.shape[:2], strict=True)]
    if not any((*before, *after)):
        return images.contiguous()
    images = nn.functional.pad(images, (0, 0, 0, 0, before[1], after[1], before[0], after[0]))
    return images.contiguous()


class _Matrices(NamedTuple):
    """What lines and columns are multiplied with, or flattened kernels and their sums."""

    inputs: Matrices
    gradients: Matrices
    outputs: Matrices
    below: Matrices
    kernels: Tensor
    sums: Tensor


@cache
def _transforms(kind: torch.dtype) -> _Matrices:
    """Return the matrices of transforms.

    The coefficients of a polynomial with given values (Toom and Cook) at ``_AT`` and infinity.
    """
    rows = [np.append(np.poly(np.delete(_AT, i))[::-1], 0.0) for i in range(len(_AT))]
    inputs = np.array([*rows, np.poly(_AT)[::-1]])
    others = np.array([np.prod(at - np.delete(_AT, i)) for i, at in enumerate(_AT)])
    kernels = np.array(
        [*(np.power.outer(_AT, range(KERNEL)) / others[:, None]), np.eye(KERNEL)[-1]]
    )
    gradients = np.array([*np.power.outer(_AT, range(TILE)), np.eye(TILE)[-1]])
    below = np.zeros((TILE, 2 * POINTS))
    below[: KERNEL - 1, :POINTS] = inputs.T[TILE:]
    below[:, POINTS:] = inputs.T[:TILE]
    flat = torch.from_numpy(np.kron(kernels, kernels)).to(kind)

    def told(matrix: Matrices) -> Matrices:
        return torch.tensor(matrix).to(kind).contiguous().numpy()

    return _Matrices(
        told(inputs), told(gradients), told(gradients.T), told(below), flat, flat.t().contiguous()
    )
