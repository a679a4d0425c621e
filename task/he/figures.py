"""Figures (weights, counts, sums of losses) as integers for BFV: sums of them are exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from conf.errors import FedproofError
from task.he.cohort import Average, Cohort
from task.he.exact import ExactPacking, room_of
from task.he.quantize import Floats, Quantizer

FRACTION_BITS = 20
"""A figure is a multiple of 2^-20."""
_MOST_BITS = 44
"""Of a figure's whole part, so that doubles hold sums of them with digits to spare."""


class FigurePacking:
    """How figures become plaintexts of integers, and sums of them sums of figures.

    Each takes two slots: its whole part, and how many 2^-20 are left.

    Parameters
    ----------
    count : int
        Figures of one client.
    clients : int
        The most that are added up.
    least : int
        The fewest whose sum may be seen.
    degree, coefficient_bits
        As in `Parameters`.

    Attributes
    ----------
    packing : ExactPacking
        Of what `slots` returns.

    Raises
    ------
    FedproofError
        If the numbers do not fit.
    """

    def __init__(
        self,
        count: int,
        clients: int,
        least: int,
        *,
        degree: int,
        coefficient_bits: tuple[int, ...],
    ) -> None:
        bits = min(room_of(clients, coefficient_bits) - clients.bit_length(), _MOST_BITS)
        if bits < FRACTION_BITS + 2:
            raise FedproofError(
                f"figures of {clients} clients do not fit into ciphertexts of this degree: lower "
                "aggregation.max_clients, or raise aggregation.degree."
            )
        most = float((1 << (bits - 1)) - 1)
        self.packing = ExactPacking(
            Cohort(2 * count, clients, 1, least),
            # Of step 1: integers are themselves.
            Quantizer(most, bits),
            degree=degree,
            coefficient_bits=coefficient_bits,
        )
        self._most = most

    def slots(self, figures: Sequence[float]) -> Floats:
        """Return the integers of one client's figures, shape (2 × count,).

        Raises
        ------
        FedproofError
            If one of them is too large, or not finite.
        """
        values = np.asarray(figures, np.float64)
        if not np.all(np.abs(values) < self._most):
            raise FedproofError("a figure of its training or evaluation is too large to be summed.")
        whole = np.floor(values)
        rest = np.rint((values - whole) * 2.0**FRACTION_BITS)
        return np.concatenate([whole, rest])

    @staticmethod
    def sums(mean: Average) -> Floats:
        """Return the sums of the figures, shape (count,)."""
        # Integers below 2^50: what the division by the count has rounded is put right.
        whole, rest = np.split(np.rint(mean.values * mean.count), 2)
        return whole + rest * 2.0**-FRACTION_BITS
