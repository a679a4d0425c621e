"""Weighted sums that come out the same to the last bit, however they are split and ordered.

Floating-point addition is not associative, so a sum over clients would depend on which worker or
node added which of them. Here every product is rounded to a multiple of one quantum first; sums of
such multiples are exact while they stay below 2^53 quanta, whatever the order (the one-level form
of Demmel and Nguyen 2013, "Fast Reproducible Floating-Point Summation").
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from task.arrays import blank

HEADROOM = 64.0
"""Values may grow so many times beyond the largest one known before a sum loses exactness."""
_PIECE = 1 << 15
"""Values that are summed at once, so that intermediate results stay in the cache."""


def quantum(weight: float, largest: float) -> float:
    """Return the unit to round to, a power of two.

    Parameters
    ----------
    weight : float
        Sum of all weights.
    largest : float
        Largest magnitude among the values to expect.

    Returns
    -------
    float
        Small enough that rounding is far below float32's own, and large enough that sums of
        values up to `HEADROOM` times `largest` are exact. Beyond that they are float64's.
    """
    # Not by a logarithm, which rounds: just above a power of two it may say that it is one.
    mantissa, exponent = math.frexp(max(weight, 1.0) * max(largest, 1.0) * HEADROOM)
    return math.ldexp(1.0, exponent - (mantissa == 0.5) - 52)


class WeightedSum:
    """Sum of weight × vector.

    Parameters
    ----------
    size : int
        Length of the vectors.
    unit : float
        What `quantum` returned; the same for all sums that will be merged.

    Attributes
    ----------
    total : Tensor of float64, shape (size,)
        The sum so far.
    array : Array
        The same memory, ready to be sent.
    """

    def __init__(self, size: int, unit: float) -> None:
        self.array, place = blank((size,), np.dtype(np.float64))
        self.total = torch.from_numpy(place)
        # Adding and subtracting this rounds to the nearest multiple of the unit, ties to even.
        self._magic = torch.tensor(1.5 * 2.0**52 * unit, dtype=torch.float64)
        self._piece = torch.empty(min(size, _PIECE), dtype=torch.float64)

    def add(self, vector: Tensor, weight: int) -> None:
        """Add one client's vector; float32 values times a weight below 2^29 are exact products."""
        for start in range(0, len(self.total), _PIECE):
            values = vector[start : start + _PIECE]
            piece = self._piece[: len(values)].copy_(values)
            torch.add(self._magic, piece, alpha=weight, out=piece).sub_(self._magic)
            self.total[start : start + _PIECE].add_(piece)

    def merge(self, total: NDArray[np.float64]) -> None:
        """Add a sum that was made elsewhere, with the same unit."""
        np.add(self.total.numpy(), total, out=self.total.numpy())


def flatten(state: Mapping[str, Tensor]) -> Tensor:
    """Return all values of a state dict in its order, as one vector."""
    return torch.cat([value.detach().reshape(-1) for value in state.values()])
