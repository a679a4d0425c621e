"""Convolutions of a chain (`task.chain`): by patch matrices, or Winograd's algorithm throughout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from torch import Tensor, nn

from task import winograd
from task.products import contracted
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
    """A convolution of images batch last, as products with a patch matrix (im2col).

    Its rows are copied in runs of a row of pixels times the batch. The other layout would have
    runs of a few channels.

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
        rows, columns = (x.shape[1] - tall) // down + 1, (x.shape[2] - wide) // right + 1
        whole, line, pixel, _ = x.stride()
        shape = (len(x), tall, wide, rows, columns, x.shape[3])
        view = x.as_strided(shape, (whole, line, pixel, down * line, right * pixel, 1))
        self._inputs, self._shape = x.shape, shape
        self._patches = view.reshape(len(x) * tall * wide, -1)
        weight = layer.weight.view(len(layer.weight), -1)
        if self._last:
            out = weight @ self._patches if layer.bias is None else torch.addmm(
                layer.bias.unsqueeze(1), weight, self._patches
            )  # fmt: skip
            return out.view(-1, *shape[3:])
        out = nn.functional.linear(self._patches.t(), weight, layer.bias)
        return out.view(*shape[3:], -1)

    def backward(self, gradient: Tensor, rate: float | None) -> Tensor:
        """Return the gradient of the inputs, which must be batch last as the outputs are."""
        layer, shape = self.layer, self._shape
        products = layer.weight.view(len(layer.weight), -1).t() @ gradient.view(len(gradient), -1)
        self.update(gradient, rate)
        parts = products.view(shape)
        (down, right), (rows, columns) = layer.stride, shape[3:5]
        # Columns first, whose sums are fewer values to add for the rows.
        lines = gradient.new_zeros(*shape[:2], rows, *self._inputs[2:])
        for j in range(shape[2]):
            lines[:, :, :, j : j + right * columns : right].add_(parts[:, :, j])
        total = gradient.new_zeros(self._inputs)
        for i in range(shape[1]):
            total[:, i : i + down * rows : down].add_(lines[:, i])
        (above, left), (height, width) = layer.padding, self._inputs[1:3]
        return total[:, above : height - above, left : width - left].contiguous()

    def update(self, gradient: Tensor, rate: float | None) -> None:
        """Use the weight's and the bias's gradients."""
        target, scale = self.target(self.layer.weight, rate)
        outputs = len(target)
        patches = self._patches.numpy()
        if self._last:
            left = gradient.view(outputs, -1)
            products = contracted(patches, left.numpy().T).T
        else:
            left = gradient.reshape(-1, outputs).t()
            products = contracted(left.numpy(), patches.T)
        target.view(outputs, -1).add_(torch.from_numpy(products), alpha=scale)
        self.shift(left.sum(1), rate)


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
