"""Numbers as integers of few bits: a declared range, a declared error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conf.errors import FedproofError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Quantizer:
    """Rounds numbers to the nearest of 2^bits - 1 evenly spaced ones.

    Attributes
    ----------
    clip : float
        The range is [-clip, clip]; what is beyond becomes its end.
    bits : int
        Of an integer, 2 or more.
    """

    clip: float
    bits: int

    @property
    def most(self) -> int:
        """The largest integer; the smallest is its negative."""
        return (1 << (self.bits - 1)) - 1

    @property
    def step(self) -> float:
        """What the integer 1 stands for; no rounding errs by more than half of it."""
        return self.clip / self.most

    def encode(self, values: NDArray[np.floating], factor: float = 1.0) -> Integers:
        """Return the integers nearest to ``clipped values × factor``, for a factor in [0, 1].

        Raises
        ------
        FedproofError
            If a value is not finite.
        """
        scaled = clipped(values, self.clip)
        scaled *= factor / self.step
        return np.rint(scaled, out=scaled).astype(np.int64)

    def decode(self, integers: Integers) -> Floats:
        """Return what integers, or sums of them, stand for."""
        return np.multiply(integers, self.step, dtype=np.float64)


def clipped(values: NDArray[np.floating], clip: float) -> Floats:
    """Return a copy in which no value is beyond [-clip, clip].

    Raises
    ------
    FedproofError
        If a value is not finite.
    """
    if not np.isfinite(values).all():
        raise FedproofError(
            "the update holds NaN or infinite values, which cannot be encoded: lower train.lr."
        )
    return np.clip(values.astype(np.float64), -clip, clip)
