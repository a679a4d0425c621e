"""Updates as real numbers for CKKS: sums are right within a bound."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.he.cohort import Average, Cohort
from task.he.contexts import Parameters, Scheme
from task.he.quantize import Floats, clipped

_DEVIATION = 3.28
"""Standard deviation of a fresh ciphertext's error and of rounding, in each coefficient."""
_TAIL = 10
"""Standard deviations that are never passed: the probability is below 10^-20 a value."""


_GRID = 16
"""Means are rounded to multiples of at least so many times their error."""


class ApproximatePacking:
    """How updates become plaintexts of real numbers, and sums of them a mean.

    What CKKS decrypts to shows something of the key's noise (Li and Micciancio 2021, "On the
    Security of Homomorphic Encryption on Approximate Numbers"): who has no key must not see it,
    and the server is told the mean. So values become multiples of a power of two that is at least
    16 times as large as the largest error, which hides the errors except where a value lies close
    to the middle of two multiples. That is a heuristic, and no proof: the provable remedy, noise
    that is exponentially larger than the errors (Li et al. 2022, "Securing Approximate Homomorphic
    Encryption Using Differential Privacy"), would leave no digits. Who wants none of it chooses
    BFV, whose sums are exact and show nothing.

    Parameters
    ----------
    cohort : Cohort
    clip : float
        Values beyond [-clip, clip] become its ends.
    degree, coefficient_bits, scale_bits
        As in `Parameters`.

    Attributes
    ----------
    slot_error : float
        No slot of a decrypted sum is further from the true one.

    Raises
    ------
    FedproofError
        If the numbers do not fit.
    """

    def __init__(
        self,
        cohort: Cohort,
        clip: float,
        *,
        degree: int = 8192,
        coefficient_bits: tuple[int, ...] = (60, 40, 40),
        scale_bits: int = 40,
    ) -> None:
        self.cohort, self._clip = cohort, clip
        self.parameters = Parameters(Scheme.ckks, degree, coefficient_bits, scale_bits=scale_bits)
        largest = cohort.clients * max(clip, 1.0)
        room = sum(coefficient_bits[:-1]) - 1.02
        if math.log2(largest) + scale_bits > room:
            raise FedproofError(
                f"sums of {cohort.clients} clients with values up to {clip:g} need "
                f"{math.log2(largest) + scale_bits:.1f} bits of {room:.1f}: lower "
                "aggregation.range or aggregation.max_clients."
            )
        # Decoding adds up the errors of all coefficients; doubles hold 53 bits of a value.
        spread = _DEVIATION * math.sqrt(cohort.clients * degree)
        self.slot_error = _TAIL * spread * 2.0**-scale_bits + largest * 2.0**-44
        if self.slot_error * cohort.weight >= 0.5:
            raise FedproofError(
                f"CKKS sums err by up to {self.slot_error:.1g}, too much to tell weights up to "
                f"{cohort.weight} apart: lower aggregation.max_weight, or choose "
                "aggregation.scheme=bfv."
            )

    def pack(self, values: NDArray[np.floating], weight: int) -> Floats:
        """Return the plaintexts of an update, shape (plaintexts, degree / 2).

        Raises
        ------
        FedproofError
            If a value is not finite or the weight not allowed.
        """
        share = self.cohort.share(weight)
        return self.cohort.lay_out(
            share, clipped(values, self._clip) * share, self.parameters.slots
        )

    def unpack(self, plaintexts: Floats) -> Average:
        """Read a decrypted sum.

        Raises
        ------
        FedproofError
            If it is none, or one of too few updates.
        """
        heads, values, filling, total = self.cohort.take_apart(plaintexts, self.cohort.size)
        nearest = np.rint(np.clip(heads, -1, 1 + self.cohort.clients))
        weight = round(min(float(total), 2.0 * self.cohort.clients) * self.cohort.weight)
        off = max(np.abs(heads - nearest).max(), np.abs(filling).max(initial=0.0))
        largest = float(nearest[0]) * self._clip + self.slot_error
        sound = bool(off <= self.slot_error and np.abs(values).max() <= largest)
        count = self.cohort.check(nearest.astype(np.int64), weight, sound)
        grid = self._grid(weight)
        mean = np.rint(values * (self.cohort.weight / weight / grid)) * grid
        return Average(mean, weight, count, self.error(count, weight))

    def error(self, count: int, weight: int) -> float:
        """Return what bounds the error of the mean of so many updates of this weight together."""
        del count
        return self.slot_error * self.cohort.weight / weight + self._grid(weight) / 2

    def _grid(self, weight: int) -> float:
        """Return what means are multiples of."""
        error = self.slot_error * self.cohort.weight / weight
        return 2.0 ** math.ceil(math.log2(_GRID * error))
