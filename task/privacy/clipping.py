"""Which way to clip a model's gradients per example: the fastest that is right for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from task.base import Examples
from task.objectives import Objective
from task.privacy.ghost import UncoveredError, add_clipped, require_covered
from task.privacy.independence import Clipper, DependentError, Probe, Shape, probing
from task.privacy.one_by_one import Clip, add_one_by_one
from task.privacy.parts import Stored, add_parts

_FOUND: WeakKeyDictionary[nn.Module, dict[tuple[Shape, type | None], Clipper]] = WeakKeyDictionary()
"""What was measured once per model holds as long as the model is there."""


def clipper_for(
    module: nn.Module, examples: Examples, objective: Objective | None = None
) -> Clipper:
    """Return a way to clip that was measured to be right for a module.

    Parameters
    ----------
    module : nn.Module
        To be trained.
    examples : Examples
        Of which only the shape, the kind and the device are looked at.
    objective : Objective, optional
        Whose loss is measured as well.

    Raises
    ------
    FedproofError
        If the module or the loss mixes examples, or keeps something of them.
    """
    found = _FOUND.setdefault(module, {})
    case = (Shape.of(examples), None if objective is None else type(objective))
    if case not in found:
        with probing(module, case[0]) as probe:
            probe.require_independent()
            if objective is not None:
                probe.require_loss(objective, examples.y)
            found[case] = _fastest(module, probe)
    return found[case]


def _fastest(module: nn.Module, probe: Probe) -> Clipper:
    """Return the first way that fits.

    Opacus is not imported where it is not needed: a deployed client starts anew for every message.
    """
    try:
        require_covered(module, probe.examples)
    except UncoveredError:
        ways: tuple[Clipper, ...] = (add_clipped_by_opacus, add_one_by_one)
    else:
        ways = (add_clipped, add_clipped_by_opacus, add_one_by_one)
    for way in ways:
        if probe.fits(way):
            return way
    raise DependentError("no way to clip finds its gradients for one example at a time")


def add_clipped_by_opacus(
    module: nn.Module, examples: Examples, objective: Objective, clip: Clip
) -> tuple[Tensor, Tensor]:
    """Do what `ghost.add_clipped` does, for layers of any kind that Opacus knows."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    with _grad_samples(module, parameters) as wrapped:
        losses = objective.loss(wrapped(examples.x), examples.y)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        samples = [_joined(p.grad_sample) for p in parameters]  # type: ignore[attr-defined]
    losses = losses.detach()
    with torch.no_grad():
        parts = [Stored(p, sample) for p, sample in zip(parameters, samples, strict=True)]
        norms = add_parts(
            parts, losses, examples, clip,
            lambda chosen: add_one_by_one(module, chosen, objective, clip)[1],
        )  # fmt: skip
    return losses, norms


@contextmanager
def _grad_samples(module: nn.Module, parameters: list[nn.Parameter]) -> Iterator[nn.Module]:
    """Yield a module whose backward pass keeps each example's gradient, and no sum of them."""
    from opacus import GradSampleModule

    kept = [p.grad for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    wrapped = GradSampleModule(module, loss_reduction="sum")
    try:
        yield wrapped
    finally:
        wrapped.to_standard_module()
        for parameter, grad in zip(parameters, kept, strict=True):
            parameter.grad = grad


def _joined(sample: Tensor | list[Tensor]) -> Tensor:
    return (torch.stack(sample).sum(0) if isinstance(sample, list) else sample).detach()
