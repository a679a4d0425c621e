"""Convolutions of a chain (`task.chain`): by patch matrices, or Winograd's algorithm throughout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from torch import Tensor, nn

from task import winograd
from task.tiles import Kernels, Tiles, transformed

_NARROW = 32
"""Fewer input channels times kernel columns make a convolution narrow."""


class Link(ABC):
    """One link of a chain; `backward` belongs to the last `forward`."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""

    @abstractmethod
    def backward(self, gradient: Tensor, rate: float | None) -> Tensor:
        """Return the gradient of the inputs, after using those of the parameters."""


class Weighted(Link):
    """A layer with a weight and perhaps a bias.

    Parameters
    ----------
    layer : nn.Linear or nn.Conv2d
        Has them.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    @abstractmethod
    def update(self, gradient: Tensor, rate: float | None) -> None:
        """Use the parameters' gradients, as `task.chain.Chain.backward` says."""

    @staticmethod
    def target(parameter: nn.Parameter, rate: float | None) -> tuple[Tensor, float]:
        """Return where to add a parameter's gradient, and times what."""
        return (cast(Tensor, parameter.grad), 1.0) if rate is None else (parameter.data, -rate)

    def shift(self, gradient: Tensor, rate: float | None) -> None:
        """Use the bias's gradient."""
        if self.layer.bias is not None:
            target, scale = self.target(self.layer.bias, rate)
            target.add_(gradient, alpha=scale)


def narrow(layer: nn.Conv2d) -> bool:
    """Tell whether patch matrices are the faster way for a convolution, as measured."""
    return layer.in_channels * layer.kernel_size[1] < _NARROW


def wide(layer: nn.Conv2d) -> bool:
    """Tell whether Winograd's algorithm is the faster way for a convolution, as measured."""
    return winograd.covers(layer.weight.shape, layer.stride)


class Patches(Weighted):
    """A convolution of images batch last, as products with matrices of patches (im2col).

    Only the columns of patches are copied, in runs of a row of pixels times the batch: with a
    kernel's columns next to each other, the patches of a row of outputs are a run of memory that
    overlaps the next row's, and a matrix without further copies. All of it stays in a core's cache.

    Parameters
    ----------
    layer : nn.Conv2d
        The convolution.
    last : bool
        Whether outputs are batch last, too, and not pixels first.
    """

    def __init__(self, layer: nn.Conv2d, last: bool) -> None:
        super().__init__(layer)
        self._last = last

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of images of shape (channels, height, width, n)."""
        layer = self.layer
        (tall, wide), (down, right), (above, left) = layer.kernel_size, layer.stride, layer.padding
        if above or left:
            x = nn.functional.pad(x, (0, 0, left, left, above, above))
        channels, height, width, n = x.shape
        rows, columns = (height - tall) // down + 1, (width - wide) // right + 1
        whole, line, pixel, _ = x.stride()
        shape = (height, channels, wide, columns, n)
        self._inputs, self._shape = x.shape, shape
        copied = x.as_strided(shape, (line, whole, pixel, right * pixel, 1)).contiguous()
        run, depth = columns * n, channels * wide
        self._patches = copied.as_strided((rows, tall * depth, run), (down * depth * run, run, 1))
        weight = self._matrix().expand(rows, -1, -1)
        if not self._last:
            out = torch.bmm(self._patches.transpose(1, 2), weight.transpose(1, 2))
            return (out if layer.bias is None else out.add_(layer.bias)).view(rows, columns, n, -1)
        products = torch.bmm(weight, self._patches).transpose(0, 1)
        out = torch.empty(products.shape, dtype=x.dtype)
        torch.add(products, 0 if layer.bias is None else layer.bias.view(-1, 1, 1), out=out)
        return out.view(-1, rows, columns, n)

    def backward(self, gradient: Tensor, rate: float | None) -> Tensor:
        """Return the gradient of the inputs, which must be batch last as the outputs are."""
        layer, (rows, patch, run) = self.layer, self._patches.shape
        (above, left), (_, height, width, _) = layer.padding, self._inputs
        (down, right), (_, _, wide, columns, _) = layer.stride, self._shape
        step, weight = down * patch // layer.kernel_size[0], self._matrix().t().contiguous()
        copies = gradient.new_zeros(self._shape)
        for i, outputs in enumerate(gradient.view(-1, rows, run).unbind(1)):
            copies.view(-1, run)[i * step : i * step + patch].addmm_(weight, outputs)
        self.update(gradient, rate)
        total = gradient.new_zeros(self._inputs)
        for j in range(wide):
            total[:, :, j : j + right * columns : right].add_(copies[:, :, j].transpose(0, 1))
        return total[:, above : height - above, left : width - left].contiguous()

    def update(self, gradient: Tensor, rate: float | None) -> None:
        """Use the weight's and the bias's gradients."""
        target, scale = self.target(self.layer.weight, rate)
        outputs, channels, tall, wide = target.shape
        rows, _, run = self._patches.shape
        if self._last:
            by_row = gradient.view(outputs, rows, run).permute(1, 2, 0)
            bias = gradient.view(outputs, -1).sum(1)
        else:
            by_row = gradient.view(rows, run, outputs)
            bias = gradient.reshape(-1, outputs).sum(0)
        products = torch.bmm(self._patches, by_row).sum(0)
        target.add_(products.view(tall, channels, wide, outputs).permute(3, 1, 0, 2), alpha=scale)
        self.shift(bias, rate)

    def _matrix(self) -> Tensor:
        """Return the weight, shape (outputs, patch), in the order of a patch's values."""
        weight: Tensor = self.layer.weight
        return weight.permute(0, 2, 1, 3).flatten(1)


class Winograd(Weighted):
    """A 3x3 convolution of images pixels first, by Winograd's algorithm."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of images of shape (height, width, n, channels)."""
        layer = self.layer
        self._tiles = Tiles(x, layer.padding)
        self._kernels = transformed(layer.weight)
        return self._tiles.outputs(self._kernels, layer.bias)

    def backward(self, gradient: Tensor, rate: float | None) -> Tensor:
        """Return the gradient of the inputs."""
        below = self._use(gradient, rate, self._kernels)
        assert below is not None
        return below

    def update(self, gradient: Tensor, rate: float | None) -> None:
        """Use the weight's and the bias's gradients."""
        self._use(gradient, rate, None)

    def _use(self, gradient: Tensor, rate: float | None, kernels: Kernels | None) -> Tensor | None:
        found = self._tiles.gradients(gradient, kernels)
        target, scale = self.target(self.layer.weight, rate)
        target.add_(found.weight, alpha=scale)
        self.shift(found.bias, rate)
        return found.input
