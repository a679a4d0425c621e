"""Norms and weighted sums of a batch's gradients, parameter by parameter.

What is fast is done in single precision, and bounds an example's part as long as its norms are
neither too large nor lost in rounding. Norms are therefore never too small: what rounding may have
taken off is added to them. Examples that single precision cannot bound, or whose loss or gradient
is not finite, are done again one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from task.base import Examples
from task.privacy.one_by_one import Clip

TINY = 2.0**-126
"""What a product may lose that is smaller than the smallest normal number."""
_LARGE = 2.0**100
"""Squared norms from which on an example is done again."""


class Part(Protocol):
    """One parameter's gradients by a batch's examples.

    Attributes
    ----------
    squares : Tensor, shape (n,)
        No less than each example's squared norm but for `lost`; infinite or NaN if unknown.
    lost : float
        What numbers too small for single precision may have taken off.
    """

    squares: Tensor
    lost: float

    def drop(self, rows: Tensor) -> None:
        """Make the gradients zero of the examples that `rows`, shape (n,), says."""

    def add(self, factor: Tensor) -> None:
        """Add the gradients, each times its factor, to the parameter's ``grad``."""


class Stored:
    """A parameter with every example's gradient, shape (n, ...)."""

    def __init__(self, parameter: Tensor, gradients: Tensor) -> None:
        self._parameter = parameter
        self._gradients = gradients.flatten(1)
        self.squares = self._gradients.square().sum(1)
        self.lost = self._gradients.shape[1] * TINY

    def drop(self, rows: Tensor) -> None:
        """Make some examples' gradients zero."""
        self._gradients = without(self._gradients, rows)

    def add(self, factor: Tensor) -> None:
        """Add the weighted sum."""
        grad_of(self._parameter).view(-1).addmv_(self._gradients.t(), factor)


def add_parts(
    parts: Sequence[Part],
    losses: Tensor,
    examples: Examples,
    clip: Clip,
    one_by_one: Callable[[Examples], Tensor],
) -> Tensor:
    """Add the sum of the clipped gradients to the parameters' ``grad``.

    Parameters
    ----------
    parts : sequence of Part
        One for each parameter that the losses depend on.
    losses : Tensor, shape (n,)
        Of the examples.
    examples : Examples
        Those of the parts.
    clip : callable
        What to multiply each example's gradient with.
    one_by_one : callable
        Does `task.privacy.one_by_one.add_one_by_one` for other examples, and returns the norms.

    Returns
    -------
    Tensor of float64, shape (n, parameters)
        Norms before clipping; of an example that was done again, the whole norm comes first.
    """
    squares = torch.stack([part.squares.double() for part in parts], 1)
    squares += squares.new_tensor([part.lost for part in parts])
    plain = torch.maximum(squares.amax(1), losses.abs()) < _LARGE
    norms = squares.sqrt_()
    if bool(plain.all()):
        factors = clip(norms).expand(-1, len(parts))
    else:
        for part in parts:
            part.drop(~plain)
        factors = torch.zeros_like(norms)
        factors[plain] = clip(norms[plain]).to(factors.dtype).expand(-1, len(parts))
        norms[~plain] = 0
        norms[~plain, 0] = _again(examples, ~plain, one_by_one)
    for part, factor in zip(parts, factors.to(losses.dtype).unbind(1), strict=True):
        part.add(factor)
    return norms


def _again(examples: Examples, rows: Tensor, one_by_one: Callable[[Examples], Tensor]) -> Tensor:
    """Return the whole norms of the examples that `rows` says, after adding their gradients."""
    chosen = Examples(examples.x[rows], examples.y[rows])
    # Dropout of later batches must not tell that there was such an example.
    devices = [] if rows.device.type == "cpu" else [rows.device]
    with torch.random.fork_rng(devices=devices):
        norms = one_by_one(chosen)
    whole: Tensor = torch.linalg.vector_norm(norms, dim=1)
    return whole


def squares_of(rows: Tensor) -> Tensor:
    """Return no less than each row's sum of squares, from shape (n, k)."""
    return rows.square().sum(1).double() + rows.shape[1] * TINY


def without(values: Tensor, rows: Tensor) -> Tensor:
    """Return a copy of values, shape (n, ...), with zeros in some rows."""
    return values.masked_fill(rows.view(-1, *[1] * (values.dim() - 1)), 0)


def grad_of(parameter: Tensor) -> Tensor:
    """Return where a parameter's gradient is added up."""
    return cast(Tensor, parameter.grad)
