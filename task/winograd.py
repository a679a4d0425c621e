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


def covers(weight: torch.Size, stride: tuple[int, ...]) -> bool:
    """Tell whether this is a 3x3 convolution with channels enough to make up for transforms."""
    return weight[2:] == (KERNEL, KERNEL) and stride == (1, 1) and min(weight[:2]) >= _CHANNELS


def pays(
    x: torch.Size, weight: torch.Size, stride: tuple[int, ...], padding: tuple[int, ...]
) -> bool:
    """Tell whether this is a 3x3 convolution whose gradient is faster so, as measured."""
    if not covers(weight, stride):
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


class Tiles:
    """Transformed tiles of images, which a convolution of stride 1 and its gradients share.

    With the transforms B of inputs, A of gradients of outputs, and G of kernels, outputs are
    Aᵀ[(B x) ⊙ (G w)], and the gradients Bᵀ[(A g) ⊙ (G w)] and Gᵀ[(B x) ⊙ (A g)]: B x and A g serve
    twice. ⊙ multiplies matrices, one per point. Images have their pixels first, so that tiles are
    copied in runs of channels times images.

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
        self._tiles = [-(-side // TILE) for side in self._out]
        sides = [TILE * tiles + KERNEL - 1 for tiles in self._tiles]
        x = _placed(x, sides, padding)
        line, pixel, image, _ = x.stride()
        shape = (POINTS, POINTS, *self._tiles, *x.shape[2:])
        view = x.as_strided(shape, (line, pixel, TILE * line, TILE * pixel, image, 1))
        self._of = _transforms(x.dtype)
        self._inputs = (self._of[0] @ view.reshape(POINTS**2, -1)).view(POINTS**2, -1, x.shape[3])

    def outputs(self, kernels: Tensor, bias: Tensor | None) -> Tensor:
        """Return the outputs, shape (rows, columns, n, outputs), for `transformed` kernels."""
        products = torch.bmm(self._inputs, kernels).view(POINTS**2, -1)
        values = _transposed(products.dtype)[1] @ products
        out = products.new_empty(*self._whole(), self._size[2], kernels.shape[2])
        tiles = values.view(TILE, TILE, *self._tiles, *out.shape[2:])
        if bias is None:
            self._apart(out).copy_(tiles)
        else:
            torch.add(tiles, bias, out=self._apart(out))
        return out[: self._out[0], : self._out[1]].contiguous()

    def transformed(self, gradient: Tensor) -> Tensor:
        """Return the outputs' gradient, transformed."""
        parts = self._apart(_placed(gradient, self._whole(), (0, 0))).reshape(TILE**2, -1)
        return (self._of[1] @ parts).view(POINTS**2, -1, gradient.shape[3])

    def weight_gradient(self, gradients: Tensor) -> Tensor:
        """Return the weight's gradient, shape (outputs, channels, 3, 3)."""
        products = torch.bmm(self._inputs.transpose(1, 2), gradients)
        sums = self._of[2] @ products.view(POINTS**2, -1)
        return sums.view(KERNEL, KERNEL, *products.shape[1:]).permute(3, 2, 0, 1)

    def input_gradient(self, gradients: Tensor, kernels: Tensor) -> Tensor:
        """Return the inputs' gradient, in the inputs' shape."""
        products = torch.bmm(gradients, kernels.transpose(1, 2)).view(POINTS**2, -1)
        values = _transposed(products.dtype)[0] @ products
        down, across = self._tiles
        parts = values.view(POINTS, POINTS, down, across, *self._size[2:])
        # Rows and columns of a tile beyond the fourth lie on those of the next.
        total = values.new_zeros(TILE * down + TILE, TILE * across + TILE, *self._size[2:])
        tiles = self._apart(total)
        over = KERNEL - 1
        tiles[:, :, :-1, :-1] = parts[:TILE, :TILE]
        tiles[:over, :, 1:, :-1] += parts[TILE:, :TILE]
        tiles[:, :over, :-1, 1:] += parts[:TILE, TILE:]
        tiles[:over, :over, 1:, 1:] += parts[TILE:, TILE:]
        (top, left), (height, width) = self._padding, self._size[:2]
        return total[top : top + height, left : left + width].contiguous()

    def _whole(self) -> list[int]:
        return [TILE * tiles for tiles in self._tiles]

    @staticmethod
    def _apart(images: Tensor) -> Tensor:
        """View images as (row in tile, column in tile, tile, tile, n, channels)."""
        down, across = (side // TILE for side in images.shape[:2])
        return images.view(down, TILE, across, TILE, *images.shape[2:]).permute(1, 3, 0, 2, 4, 5)


def transformed(weight: Tensor) -> Tensor:
    """Return kernels of shape (outputs, channels, 3, 3) as (points, channels, outputs)."""
    flat = weight.permute(2, 3, 1, 0).reshape(KERNEL**2, -1)
    return (_transposed(weight.dtype)[2] @ flat).view(POINTS**2, *weight.shape[1::-1])


def _placed(images: Tensor, sides: list[int], before: tuple[int, ...]) -> Tensor:
    """Return images, pixels first, with zeros around them, so many rows and columns."""
    after = [s - b - size for s, b, size in zip(sides, before, images.shape[:2], strict=True)]
    if not any((*before, *after)):
        return images
    return nn.functional.pad(images, (0, 0, 0, 0, before[1], after[1], before[0], after[0]))


@cache
def _transposed(kind: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(matrix.t().contiguous() for matrix in _transforms(kind))


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
