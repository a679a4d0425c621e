"""Forward and backward passes of chains of layers, written out: no automatic differentiation.

A step on a small network takes a few milliseconds, much of them for noting down operations, and
for convolutions that are slow on few channels. A `Chain` computes what its layers compute, from
and to the same parameters, in a layout in which all operations run over long stretches of memory:

- images *batch last*, (channels, height, width, n), where all convolutions have few channels;
- images *pixels first*, (height, width, n, channels), where all but the first are Winograd's.

`task.convolutions` says why. Which networks are covered, and in which layout, depends on their
layers and the input's shape alone, so that a model's last bits do not depend on a measurement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from task import kernels
from task.convolutions import Link, Patches, Weighted, Winograd, narrow, wide
from task.products import CACHED, KINDS, contracted, quietly, stepped


class Chain:
    """The passes of a network in training; `chain_of` makes them.

    Parameters
    ----------
    links : sequence of Link
        In the order of the forward pass.
    images : bool
        Whether inputs are images, which the links expect batch last.
    """

    def __init__(self, links: Sequence[Link], images: bool) -> None:
        self._links = links
        self._images = images
        self._first = next(i for i, link in enumerate(links) if isinstance(link, Weighted))

    @torch.no_grad()
    @quietly
    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (n, outputs), of inputs that may be overwritten."""
        if self._images:
            x = x.flatten(1).t().contiguous().view(*x.shape[1:], len(x))
        for link in self._links:
            x = link.forward(x)
        return x

    @torch.no_grad()
    @quietly
    def backward(self, gradient: Tensor, rate: float | None = None) -> None:
        """Add to the gradients of the parameters, or take a step of plain SGD.

        Parameters
        ----------
        gradient : Tensor, shape (n, outputs)
            Of the outputs of the last `forward`; overwritten.
        rate : float or None
            Learning rate: gradients are not stored, but added times ``-rate`` to the parameters.
        """
        for link in reversed(self._links[self._first + 1 :]):
            gradient = link.backward(gradient, rate)
        first = self._links[self._first]
        assert isinstance(first, Weighted)
        first.update(gradient, rate)


def chain_of(module: nn.Module, x: Tensor) -> Chain | None:
    """Return the passes of a module for inputs like `x`, or None if it is not covered.

    Covered are sequences of layers that `task.kernels.accelerate` has exchanged, and of ReLU and
    max-pooling, without hooks, shared or frozen parameters.
    """
    layers = kernels.links(module)
    parameters = list(module.parameters())
    places = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
    if (
        x.dtype not in KINDS
        or not all(_known(layer) for layer in layers)
        or len({id(layer) for layer in layers}) < len(layers)
        or any(kernels.hooked(layer) for layer in module.modules())
        or any(not p.requires_grad or p.dtype != x.dtype or p.is_cuda for p in parameters)
        or max(places.values(), default=2) > 1
    ):
        return None
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    links = list(_image_links(layers, convolutions) if convolutions else _dense_links(layers, x))
    if not links or (convolutions and x.dim() != 4):
        return None
    return Chain(links, bool(convolutions))


def _known(layer: nn.Module) -> bool:
    if isinstance(layer, nn.MaxPool2d):
        return type(layer) is nn.MaxPool2d and not layer.return_indices
    if isinstance(layer, nn.Flatten):
        return type(layer) is kernels.Flatten and (layer.start_dim, layer.end_dim) == (1, -1)
    return type(layer) in (kernels.Linear, kernels.Conv2d, kernels.Dropout, nn.ReLU)


def _dense_links(layers: list[nn.Module], x: Tensor) -> Iterator[Link]:
    """Yield the links of dense layers on rows; none if there are others."""
    kinds = [type(layer) for layer in layers]
    if nn.MaxPool2d in kinds or kernels.Linear not in kinds:
        return
    if kernels.Flatten in kinds[1:] or (kinds[0] is not kernels.Flatten and x.dim() != 2):
        return
    for layer in layers:
        yield Rows() if isinstance(layer, nn.Flatten) else _rowwise(layer)


def _image_links(layers: list[nn.Module], convolutions: list[Any]) -> Iterator[Link]:
    """Yield the links of a convolutional network; none if its shape or sizes are not covered."""
    kinds = [type(layer) for layer in layers]
    if kinds.count(kernels.Flatten) != 1 or layers[0] is not convolutions[0]:
        return
    flat = kinds.index(kernels.Flatten)
    if kernels.Linear in kinds[:flat] or {kernels.Conv2d, nn.MaxPool2d} & {*kinds[flat:]}:
        return
    last = all(narrow(layer) for layer in convolutions)
    if not last and not all(wide(layer) for layer in convolutions[1:]):
        return
    for i, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            yield Patches(layer, last) if last or i == 0 else Winograd(layer)
        elif isinstance(layer, nn.MaxPool2d):
            yield Pool(layer, last)
        elif isinstance(layer, nn.Flatten):
            yield FromBatchLast() if last else FromPixelsFirst()
        else:
            yield _rowwise(layer)


def _rowwise(layer: Any) -> Link:
    if isinstance(layer, nn.Linear):
        return Dense(layer)
    return Rectifier() if isinstance(layer, nn.ReLU) else Mask(layer.p)


class Dense(Weighted):
    """A dense layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs, shape (n, outputs), of inputs of shape (n, inputs)."""
        self._x = x
        layer = self.layer
        if layer.weight.numel() <= CACHED or not x.t().is_contiguous():
            return nn.functional.linear(x, layer.weight, layer.bias)
        out = torch.from_numpy(contracted(layer.weight.detach().numpy(), x.t().numpy())).t()
        return out.contiguous() if layer.bias is None else out + layer.bias

    def backward(self, gradient: Tensor, rate: float | None) -> Tensor:
        """Return the gradient of the inputs."""
        weight: Tensor = self.layer.weight
        if rate is None:
            below = gradient @ weight
            self.update(gradient, rate)
        else:
            below = stepped(weight.data, self._x, gradient, rate)
            self.shift(gradient.sum(0), rate)
        return below

    def update(self, gradient: Tensor, rate: float | None) -> None:
        """Use the weight's and the bias's gradients."""
        target, scale = self.target(self.layer.weight, rate)
        target.addmm_(gradient.t(), self._x, alpha=scale)
        self.shift(gradient.sum(0), rate)


class Rectifier(Link):
    """ReLU, in place: no link needs its own outputs as they were."""

    def forward(self, x: Tensor) -> Tensor:
        """Zero what is negative."""
        self._y = x.relu_()
        return self._y

    def backward(self, gradient: Tensor, rate: float | None) -> Tensor:
        """Zero the gradient where the output is zero."""
        out = gradient if gradient.is_contiguous() else torch.empty_like(self._y)
        torch.ops.aten.threshold_backward.grad_input(gradient, self._y, 0, grad_input=out)
        return out


class Mask(Link):
    """Dropout."""

    def __init__(self, p: float) -> None:
        self._p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop values, and scale the others."""
        self._mask = kernels.dropout_mask(x, self._p)
        return x * self._mask

    def backward(self, gradient: Tensor, rate: float | None) -> Tensor:
        """Drop and scale the same."""
        return gradient * self._mask


class Pool(Link):
    """Max-pooling by torch, for which either layout is one of images in channels-last order."""

    def __init__(self, layer: nn.MaxPool2d, last: bool) -> None:
        pairs = (
            (v, v) if isinstance(v, int) else tuple(v)
            for v in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        )
        self._geometry = (*pairs, layer.ceil_mode)
        self._last = last

    def forward(self, x: Tensor) -> Tensor:
        """Return the largest values, in the layout of the input."""
        self._inside = x.shape[2:]
        self._x = self._images(x)
        out, self._places = torch.ops.aten.max_pool2d_with_indices(self._x, *self._geometry)
        return self._own(out)

    def backward(self, gradient: Tensor, rate: float | None) -> Tensor:
        """Return the gradients where the largest values were, and zero elsewhere."""
        return self._own(
            torch.ops.aten.max_pool2d_with_indices_backward(
                self._images(gradient), self._x, *self._geometry, self._places
            )
        )

    def _images(self, x: Tensor) -> Tensor:
        return (x if self._last else x.flatten(2).unsqueeze(0)).permute(0, 3, 1, 2)

    def _own(self, images: Tensor) -> Tensor:
        x = images.permute(0, 2, 3, 1).contiguous()
        return x if self._last else x.view(*x.shape[1:3], *self._inside)


class Rows(Link):
    """Inputs as rows, of which no gradient is wanted."""

    def forward(self, x: Tensor) -> Tensor:
        """Return all values of an input as a row."""
        return x.flatten(1)

    def backward(self, gradient: Tensor, rate: float | None) -> Tensor:
        """Return the same."""
        return gradient


class FromBatchLast(Link):
    """From images batch last to rows."""

    def forward(self, x: Tensor) -> Tensor:
        """Return shape (n, channels · height · width), from (channels, height, width, n)."""
        self._shape = x.shape
        return x.view(-1, x.shape[3]).t()

    def backward(self, gradient: Tensor, rate: float | None) -> Tensor:
        """Return the gradient as images."""
        return gradient.t().contiguous().view(self._shape)


class FromPixelsFirst(Link):
    """From images pixels first to rows."""

    def forward(self, x: Tensor) -> Tensor:
        """Return shape (n, channels · height · width), from (height, width, n, channels)."""
        self._shape = (*x.shape[2:], *x.shape[:2])
        return x.permute(3, 0, 1, 2).reshape(-1, x.shape[2]).t()

    def backward(self, gradient: Tensor, rate: float | None) -> Tensor:
        """Return the gradient as images."""
        return gradient.view(self._shape).permute(2, 3, 0, 1).contiguous()
