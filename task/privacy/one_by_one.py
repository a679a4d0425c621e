"""Clipped gradients of any model, one example at a time: right by construction.

Each example goes through the model as a batch of its own, so its gradient depends on no other, and
autograd makes it, so it is right for layers of any kind, shared weights and hooks. It is also the
slowest way. Norms are those of the very tensors that are added, in double precision.

An example whose loss or gradient is not finite counts as one whose gradient is zero, here and in
all other ways to clip; so does one whose input is not finite, which a training leaves out from the
start (`finite_rows`). It must not turn the sum into NaN, nor its step into an error: a model can be
made so that this tells whether there is such an example.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from task.base import Examples
from task.objectives import Objective

Clip = Callable[[Tensor], Tensor]
"""From each example's norms, shape (n, parameters), to factors: the same shape, or (n, 1).

It may be called for some of a batch's examples at a time."""


def add_one_by_one(
    module: nn.Module, examples: Examples, objective: Objective, clip: Clip
) -> tuple[Tensor, Tensor]:
    """Do what `task.privacy.ghost.add_clipped` does, for any module."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    losses, norms = [], []
    for row in range(len(examples)):
        with torch.enable_grad():
            outputs = module(examples.x[row : row + 1])
            loss = objective.loss(outputs, examples.y[row : row + 1])
            gradients = _gradients(loss, parameters)
        sizes = torch.stack([gradient.double().norm() for gradient in gradients]).unsqueeze(0)
        if not (bool(loss.isfinite().all()) and bool(sizes.isfinite().all())):
            gradients, sizes = [torch.zeros_like(p) for p in parameters], torch.zeros_like(sizes)
        factors = clip(sizes).double().expand(-1, len(parameters))[0]
        with torch.no_grad():
            for parameter, gradient, factor in zip(parameters, gradients, factors, strict=True):
                assert parameter.grad is not None
                # The product in double precision: a factor may be too small for a float32.
                parameter.grad.add_((gradient.double() * factor).to(gradient.dtype))
        losses.append(loss.detach())
        norms.append(sizes)
    return torch.cat(losses), torch.cat(norms)


def finite_rows(examples: Examples) -> Tensor:
    """Return which examples have finite inputs and targets, shape (n,)."""
    finite = torch.ones(len(examples), dtype=torch.bool, device=examples.x.device)
    for values in (examples.x, examples.y):
        if values.is_floating_point() and values.numel():
            # Zero times what is not finite is NaN: several times faster than `isfinite`.
            finite &= values.reshape(len(values), -1).mul(0).sum(1) == 0
    return finite


def _gradients(loss: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Return a loss' gradient by each parameter, zeros where it depends on none."""
    if not loss.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    found = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
    return [
        torch.zeros_like(p) if g is None else g.to_dense() if g.is_sparse else g
        for p, g in zip(parameters, found, strict=True)
    ]
