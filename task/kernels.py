"""Layers that train small batches on a CPU faster than torch's own, with the same results.

`accelerate` exchanges a module's layers for these, where they are configured so that these apply;
names, parameters and state dicts stay. They keep images in channels-last order throughout, and
add weight gradients where `task.flat.FlatModel` wants them instead of into tensors of their own, or
to the weights themselves (`stepping`).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from task import winograd
from task.patches import patch_products
from task.products import KINDS, stepped

_RUN = 32
"""Shortest run of neighbouring values for which copying patches beats oneDNN's gradient."""
_M = TypeVar("_M", bound=nn.Module)


def accelerate(module: _M) -> _M:
    """Exchange the layers of `module`, in place, for those below; others stay as they are.

    Layers of exactly torch's types are exchanged, never subclasses; none in a module with hooks.
    Whether the result computes the same is for `task.witness` to try.
    """
    if any(hooked(layer) for layer in module.modules()):
        return module
    chain = is_plain_chain(module)
    for layer in module.modules():
        faster = _FASTER.get(type(layer))
        if faster is not None and faster.covers(layer):
            layer.__class__ = faster
    if chain:
        for layers in module.modules():
            if isinstance(layers, nn.Sequential):
                _order(layers)
    return module


def hooked(layer: nn.Module) -> bool:
    """Tell whether something is called before or after a layer's passes."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(layer, kind) for kind in kinds)


def is_plain_chain(module: nn.Module) -> bool:
    """Tell whether a module is torch's own layers one after the other, each called once.

    Then nobody but the next layer sees a layer's output, which may be changed in place: a forward
    pass of the user's own may keep it, or call one activation twice.
    """
    if type(module) is not nn.Sequential:
        return False
    layers = links(module)
    own = all(type(layer).__module__.startswith("torch.nn.") for layer in layers)
    return own and len({id(layer) for layer in layers}) == len(layers)


def _order(layers: nn.Sequential) -> None:
    """Let ReLU follow a max-pool, which leaves it less to do, and work in place where it may."""
    for i in range(len(layers) - 1):
        if type(layers[i]) is nn.ReLU and type(layers[i + 1]) is nn.MaxPool2d:
            layers[i], layers[i + 1] = layers[i + 1], layers[i]
    for before, layer in itertools.pairwise(layers):
        if type(layer) is nn.ReLU and isinstance(before, Conv2d | Linear | nn.MaxPool2d):
            layer.inplace = True


@contextmanager
def stepping(module: nn.Module, rate: float) -> Iterator[list[nn.Parameter]]:
    """Let backward passes take steps of plain SGD inside, with the weights that allow it.

    Such a weight's gradient is never stored, but added times ``-rate`` to the weight, which large
    layers are read and written for once instead of three times. These are layers that surely
    compute once per step: links of a chain.

    Parameters
    ----------
    module : nn.Module
        What `accelerate` returned.
    rate : float
        Learning rate.

    Yields
    ------
    list of nn.Parameter
        The other trainable parameters, which are left to the caller.
    """
    places = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
    layers = [
        link for link in links(module)
        if isinstance(link, Linear | Conv2d) and link.ours and link.weight.requires_grad
        and places[id(link.weight)] == 1
    ]  # fmt: skip
    taken = {id(layer.weight) for layer in layers}
    for layer in layers:
        layer.rate = rate
    try:
        yield [p for p in module.parameters() if p.requires_grad and id(p) not in taken]
    finally:
        for layer in layers:
            layer.rate = None


def links(module: nn.Module) -> list[nn.Module]:
    """Return the layers of a chain, in their order; a module of another kind is one layer."""
    if type(module) is nn.Sequential:
        return [link for layer in module for link in links(layer)]
    return [module]


class Linear(nn.Linear):
    """`nn.Linear` whose weight gradient is added in place."""

    rate: float | None = None

    @property
    def ours(self) -> bool:
        """Whether steps may be taken here."""
        return self.weight.dtype in KINDS

    @staticmethod
    def covers(layer: nn.Module) -> bool:
        """Tell whether this may stand for `layer`."""
        return True

    def forward(self, x: Tensor) -> Tensor:
        """Compute as torch's layer does."""
        if not torch.is_grad_enabled() or (x.dim() != 2 and self.rate is None):
            return super().forward(x)
        flat = x.reshape(-1, x.shape[-1])
        out = cast(Tensor, _Linear.apply(flat, self.weight, self.bias, self.rate))
        return out.view(*x.shape[:-1], -1)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` with the weight gradient as products of patch matrices, or Winograd's.

    oneDNN's own takes twice as long on batches of some ten images. The forward pass and the
    gradient of the input, which run at the speed of matrix products, are oneDNN's.
    """

    rate: float | None = None

    @property
    def ours(self) -> bool:
        """Whether the weight gradient is computed here, which short runs are too slow for."""
        return self.in_channels * self.kernel_size[1] >= _RUN and self.weight.dtype in KINDS

    @staticmethod
    def covers(layer: nn.Module) -> bool:
        """Tell whether this may stand for `layer`."""
        assert isinstance(layer, nn.Conv2d)
        plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
        return plain and not isinstance(layer.padding, str)

    def forward(self, x: Tensor) -> Tensor:
        """Compute as torch's layer does."""
        x = x.to(memory_format=torch.channels_last)
        if not torch.is_grad_enabled() or not self.ours:
            return super().forward(x)
        geometry = (self.stride, self.padding, self.rate)
        return cast(Tensor, _Conv2d.apply(x, self.weight, self.bias, geometry))


class Flatten(nn.Flatten):
    """`nn.Flatten` that hands images back in channels-last order, for the layers before it."""

    @staticmethod
    def covers(layer: nn.Module) -> bool:
        """Tell whether this may stand for `layer`."""
        return True

    def forward(self, x: Tensor) -> Tensor:
        """Compute as torch's layer does."""
        return super().forward(cast(Tensor, _Restored.apply(x)) if x.dim() == 4 else x)


class Dropout(nn.Dropout):
    """`nn.Dropout` from 8 or 16 random bits per value; outputs keep their mean exactly."""

    @staticmethod
    def covers(layer: nn.Module) -> bool:
        """Tell whether this may stand for `layer`."""
        assert isinstance(layer, nn.Dropout)
        return 0 < layer.p < 1

    def forward(self, x: Tensor) -> Tensor:
        """Compute as torch's layer does."""
        if not self.training:
            return x
        x = x if x.is_contiguous(memory_format=_images(x)) else x.contiguous()
        return x * dropout_mask(x, self.p)


def dropout_mask(x: Tensor, p: float) -> Tensor:
    """Return what dropout multiplies values with: zero, or what keeps their mean exactly.

    Parameters
    ----------
    x : Tensor
        Of values that lie next to each other.
    p : float
        Share of values to drop, from 0 to less than 1.
    """
    if p == 0:
        return torch.ones_like(x)
    kind, levels = (torch.int8, 256) if (p * 256).is_integer() else (torch.int16, 65536)
    dropped = min(max(round(p * levels), 1), levels - 1)
    words = torch.empty(-(-x.numel() * kind.itemsize // 8), dtype=torch.int64)
    bits = words.random_(-(2**63), None).view(kind)[: x.numel()]
    # Written as numbers at once: a tensor of booleans takes ten times as long.
    keep = torch.ge(bits, dropped - levels // 2, out=torch.empty_like(bits, dtype=x.dtype))
    return keep.mul_(levels / (levels - dropped)).as_strided(x.shape, x.stride())


_FASTER: dict[type[nn.Module], Any] = {
    nn.Linear: Linear,
    nn.Conv2d: Conv2d,
    nn.Dropout: Dropout,
    nn.Flatten: Flatten,
}


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, rate: float | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias, ctx.rate = bias is not None, rate
        return nn.functional.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        wanted = ctx.needs_input_grad
        x_grad = weight_grad = None
        if wanted[0] and wanted[1] and ctx.rate is not None:
            x_grad = stepped(weight.data, x, grad, ctx.rate)
        else:
            x_grad = grad @ weight if wanted[0] else None
            if wanted[1]:
                target, scale, weight_grad = _target(weight, ctx.rate)
                target.addmm_(grad.t(), x, alpha=scale)
        return x_grad, weight_grad, grad.sum(0) if ctx.bias and wanted[2] else None, None


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.bias = geometry, bias is not None
        return nn.functional.conv2d(x, weight, bias, *geometry[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, rate = ctx.geometry
        grad = grad.contiguous(memory_format=torch.channels_last)
        wanted = ctx.needs_input_grad
        x_grad = weight_grad = None
        if wanted[0]:
            x_grad = torch.ops.aten.convolution_backward(
                grad, x, weight, [len(weight)], stride, padding, (1, 1), False, (0, 0), 1,
                [True, False, False],
            )[0]  # fmt: skip
        if wanted[1]:
            target, scale, weight_grad = _target(weight, rate)
            if winograd.pays(x.shape, weight.shape, stride, padding):
                products = winograd.weight_gradient(x, grad, padding)
            else:
                products = patch_products(x, grad, weight.shape, stride, padding)
            target.add_(products, alpha=scale)
        bias_grad = grad.sum((0, 2, 3)) if ctx.bias and wanted[2] else None
        return x_grad, weight_grad, bias_grad, None


class _Restored(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.contiguous(memory_format=torch.channels_last)


def _images(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.dim() == 4 else torch.contiguous_format


def _target(weight: Tensor, rate: float | None) -> tuple[Tensor, float, Tensor | None]:
    """Return where to add a weight's gradient, times what, and what to hand to autograd for it."""
    if rate is not None:
        return weight.data, -rate, None
    if weight.grad is not None:
        return weight.grad, 1.0, None
    fresh = torch.zeros_like(weight)
    return fresh, 1.0, fresh
