"""Clipped gradients without every example's own: book-keeping ghost clipping.

One backward pass yields the gradients of the layers' outputs. From them and the layers' inputs
follow the norm of every example's gradient (Goodfellow 2015; Li et al. 2022) and then the sum of
the clipped gradients (Bu et al. 2023, "book-keeping"). Where the gradient of one example is smaller
than what its norm takes without it, it is made after all (Bu et al. 2022, "mixed ghost clipping").

That holds for layers of exactly the kinds below, used once, as themselves. What says so here is
only what a module looks like; `task.privacy.independence` measures whether it is true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from task.base import Examples
from task.objectives import Objective
from task.privacy.one_by_one import Clip, add_one_by_one
from task.privacy.parts import TINY, Part, Stored, add_parts, grad_of, squares_of, without

_ROUNDING = 2.0**-21
"""What rounding may take off a sum of products in single precision, relative to their sizes."""


class UncoveredError(Exception):
    """A module whose gradients must be clipped in another way."""


def require_covered(module: nn.Module, examples: Examples) -> None:
    """Check that a module's gradients can be clipped here.

    Raises
    ------
    UncoveredError
        With the reason, if a layer is of another kind, has hooks, computes more than once, or
        shares its parameters.
    """
    owners: Counter[int] = Counter()
    for layer in module.modules():
        own = [p for p in layer.parameters(recurse=False) if p.requires_grad]
        if own and _kind(layer) is None:
            raise UncoveredError(f"{type(layer).__name__} is of another kind")
        if any(getattr(layer, hooks) for hooks in _HOOKS) or "forward" in vars(layer):
            raise UncoveredError(f"{type(layer).__name__} does not compute as its class does")
        if any(p._backward_hooks or p._post_accumulate_grad_hooks for p in own):
            raise UncoveredError(f"a gradient of {type(layer).__name__} has hooks")
        owners.update(map(id, own))
    if any(count > 1 for count in owners.values()):
        raise UncoveredError("layers share parameters")
    with _Calls(module) as calls:
        module(examples.x)
    calls.check(len(examples))


def add_clipped(
    module: nn.Module, examples: Examples, objective: Objective, clip: Clip
) -> tuple[Tensor, Tensor]:
    """Add the sum of the examples' clipped gradients to the parameters' ``grad``.

    Parameters
    ----------
    module : nn.Module
        One that `require_covered` lets pass, with a ``grad`` for every trainable parameter.
    examples : Examples
        At least one.
    objective : Objective
        What to learn.
    clip : callable
        What to multiply each example's gradient with.

    Returns
    -------
    losses : Tensor, shape (n,)
    norms : Tensor of float64, shape (n, parameters)
        Of each example's gradient before clipping, as `task.privacy.parts.add_parts` has them.
    """
    with _Calls(module) as calls:
        losses = objective.loss(module(examples.x), examples.y)
    try:
        calls.check(len(examples))
    except UncoveredError:
        # For these examples the module computes in another way than for those it was checked with.
        return add_one_by_one(module, examples, objective, clip)
    outputs = [call.output for call in calls.made]
    gradients = torch.autograd.grad(losses.sum(), outputs, allow_unused=True)
    parts: list[Part] = []
    with torch.no_grad():
        for call, gradient in zip(calls.made, gradients, strict=True):
            if gradient is not None:
                parts += _kind_of(call.layer)(call.layer, call.input, gradient)
        losses = losses.detach()
        norms = add_parts(
            parts, losses, examples, clip,
            lambda chosen: add_one_by_one(module, chosen, objective, clip)[1],
        )  # fmt: skip
    return losses, norms


@dataclass
class _Call:
    layer: nn.Module
    input: Tensor
    output: Tensor
    versions: tuple[int, int]


class _Calls:
    """Notes what the layers with parameters are given and return, inside."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._hooks = ExitStack()
        self.made: list[_Call] = []

    def __enter__(self) -> _Calls:
        for layer in self._module.modules():
            if any(p.requires_grad for p in layer.parameters(recurse=False)):
                self._hooks.callback(
                    layer.register_forward_hook(self._note, with_kwargs=True).remove
                )
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def _note(
        self, layer: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any], output: Any
    ) -> None:
        (value,) = (*given, *named.values())
        self.made.append(_Call(layer, value.detach(), output, (value._version, output._version)))

    def check(self, count: int) -> None:
        """Refuse layers that computed twice, for other rows, or on what was changed in place."""
        if len({id(call.layer) for call in self.made}) < len(self.made):
            raise UncoveredError("a layer computes more than once")
        for call in self.made:
            if (call.input._version, call.output._version) != call.versions:
                raise UncoveredError("a layer's output is changed in place")
            if not len(call.input) == len(call.output) == count:
                raise UncoveredError("a layer's first axis is not that of the examples")


class _Product:
    """The weight of a matrix product at several places of each example, none of them stored.

    Parameters
    ----------
    weight : Tensor
        As many values as outputs × inputs.
    inputs, gradients : Tensor, shapes (n, places, inputs) and (n, places, outputs)
        Of the layer, and of its output.
    """

    def __init__(self, weight: Tensor, inputs: Tensor, gradients: Tensor) -> None:
        self._weight, self._inputs, self._gradients = weight, inputs, gradients
        self.lost = 0.0
        if inputs.shape[1] == 1:
            self.squares = squares_of(inputs[:, 0]).mul_(squares_of(gradients[:, 0]))
        else:
            self.squares = _cross_squares(inputs @ inputs.mT, gradients @ gradients.mT)

    def drop(self, rows: Tensor) -> None:
        self._inputs, self._gradients = (without(v, rows) for v in (self._inputs, self._gradients))

    def add(self, factor: Tensor) -> None:
        weighted = (self._gradients * factor.view(-1, 1, 1)).flatten(0, 1)
        grad = grad_of(self._weight).view(weighted.shape[1], -1)
        grad.addmm_(weighted.t(), self._inputs.flatten(0, 1))


def _cross_squares(left: Tensor, right: Tensor) -> Tensor:
    """Return no less than each example's squared norm of Σ a gᵀ over places.

    Parameters
    ----------
    left, right : Tensor, shape (n, places, places)
        Products of all places' a, and of all places' g.
    """
    sizes = [product.diagonal(dim1=1, dim2=2).double() for product in (left, right)]
    # Where places nearly cancel out, rounding could hide the norm: no more than this.
    most = (sizes[0] * sizes[1]).sqrt().sum(1).square()
    lost = left.shape[1] ** 2 * TINY * (sizes[0].amax(1) + sizes[1].amax(1) + 1)
    return (left * right).sum((1, 2)).double().clamp_min(0) + _ROUNDING * most + lost


def _product(weight: Tensor, inputs: Tensor, gradients: Tensor) -> Part:
    places = inputs.shape[1]
    if places > 1 and weight.numel() <= places * places:
        return Stored(weight, gradients.mT @ inputs)
    return _Product(weight, inputs, gradients)


def _linear(layer: nn.Module, given: Tensor, gradient: Tensor) -> Iterator[Part]:
    assert isinstance(layer, nn.Linear)
    inputs = given.reshape(len(given), -1, given.shape[-1])
    gradients = gradient.reshape(len(given), -1, gradient.shape[-1])
    yield from _affine(layer, inputs, gradients)


def _convolution(layer: nn.Module, given: Tensor, gradient: Tensor) -> Iterator[Part]:
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    images = given.unsqueeze(2) if isinstance(layer, nn.Conv1d) else given
    kernel, dilation, stride = (
        _sides(values, 1) for values in (layer.kernel_size, layer.dilation, layer.stride)
    )
    if isinstance(layer.padding, str):
        # "same" may need one place more on the right than on the left.
        same = layer.padding == "same"
        total = [d * (k - 1) * same for k, d in zip(kernel, dilation, strict=True)]
        before = [pad // 2 for pad in total]
        after = [pad - first for pad, first in zip(total, before, strict=True)]
    else:
        before = after = list(_sides(layer.padding, 0))
    if any(before) or any(after):
        images = functional.pad(images, (before[1], after[1], before[0], after[0]))
    # One copy of a view: several times faster than `functional.unfold`.
    count, channels, down, right = images.stride()
    places = gradient.shape[2:] if gradient.dim() == 4 else (1, gradient.shape[2])
    steps = (down * dilation[0], right * dilation[1], down * stride[0], right * stride[1])
    view = images.as_strided(
        (*images.shape[:2], *kernel, *places), (count, channels, *steps), images.storage_offset()
    )
    patches = view.reshape(len(given), -1, places[0] * places[1])
    yield from _affine(layer, patches.mT, gradient.flatten(2).mT)


def _sides(values: Any, first: int) -> tuple[int, int]:
    """Return a convolution's setting for height and width; a series is an image of one row."""
    return (first, values[0]) if len(values) == 1 else values


def _affine(layer: Any, inputs: Tensor, gradients: Tensor) -> Iterator[Part]:
    if layer.weight.requires_grad:
        yield _product(layer.weight, inputs, gradients)
    if layer.bias is not None and layer.bias.requires_grad:
        yield Stored(layer.bias, gradients.sum(1))


def _group_norm(layer: nn.Module, given: Tensor, gradient: Tensor) -> Iterator[Part]:
    assert isinstance(layer, nn.GroupNorm)
    normed = functional.group_norm(given, layer.num_groups, eps=layer.eps)
    shape = (len(given), layer.num_channels, -1)
    yield from _scaled(layer, *(v.reshape(shape).sum(2) for v in (gradient * normed, gradient)))


def _layer_norm(layer: nn.Module, given: Tensor, gradient: Tensor) -> Iterator[Part]:
    assert isinstance(layer, nn.LayerNorm)
    normed = functional.layer_norm(given, layer.normalized_shape, eps=layer.eps)
    shape = (len(given), -1, *layer.normalized_shape)
    scales, shifts = (v.reshape(shape).sum(1) for v in (gradient * normed, gradient))
    yield from _scaled(layer, scales, shifts)


def _scaled(layer: Any, scales: Tensor, shifts: Tensor) -> Iterator[Part]:
    if layer.weight.requires_grad:
        yield Stored(layer.weight, scales)
    if layer.bias is not None and layer.bias.requires_grad:
        yield Stored(layer.bias, shifts)


class _Embedded:
    """Rows of an embedding that each example looked up, shape (n, places), none of them stored."""

    def __init__(self, layer: nn.Embedding, symbols: Tensor, gradients: Tensor) -> None:
        self._layer, self._symbols = layer, symbols
        self.lost = 0.0
        if layer.padding_idx is not None:
            gradients = gradients * (symbols != layer.padding_idx).unsqueeze(2)
        self._gradients = gradients
        same = symbols.unsqueeze(1) == symbols.unsqueeze(2)
        self.squares = _cross_squares(same.to(gradients.dtype), gradients @ gradients.mT)

    def drop(self, rows: Tensor) -> None:
        self._gradients = without(self._gradients, rows)

    def add(self, factor: Tensor) -> None:
        weighted = (self._gradients * factor.view(-1, 1, 1)).flatten(0, 1)
        grad_of(self._layer.weight).index_add_(0, self._symbols.flatten(), weighted)


def _embedding(layer: nn.Module, given: Tensor, gradient: Tensor) -> Iterator[Part]:
    assert isinstance(layer, nn.Embedding)
    symbols = given.reshape(len(given), -1)
    yield _Embedded(layer, symbols, gradient.reshape(*symbols.shape, -1))


_Kind = Callable[[nn.Module, Tensor, Tensor], Iterator[Part]]
_KINDS: Mapping[type[nn.Module], _Kind] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.Embedding: _embedding,
}
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
"""Where a module keeps its hooks."""


def _kind(layer: nn.Module) -> _Kind | None:
    if isinstance(layer, nn.Conv1d | nn.Conv2d) and (
        layer.groups > 1 or layer.padding_mode != "zeros"
    ):
        return None
    if isinstance(layer, nn.Embedding) and (layer.max_norm or layer.scale_grad_by_freq):
        return None
    # A subclass may compute anything.
    return _KINDS.get(type(layer))


def _kind_of(layer: nn.Module) -> _Kind:
    kind = _kind(layer)
    assert kind is not None
    return kind
