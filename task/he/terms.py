"""What all parties of a run with homomorphic encryption know."""

from __future__ import annotations

from dataclasses import dataclass

from task.he.approximate import ApproximatePacking
from task.he.ciphertexts import Packing
from task.he.cohort import Cohort
from task.he.contexts import Parameters, Scheme
from task.he.exact import ExactPacking
from task.he.figures import FigurePacking
from task.he.quantize import Quantizer

PRIMES = {4096: (54, 54), 8192: (60, 60), 16384: (60, 60)}
"""Bits of the primes of each degree: one to hold sums, one that SEAL keeps for keys."""


@dataclass(frozen=True)
class Terms:
    """Settings that sums depend on.

    Attributes
    ----------
    scheme : Scheme
        Of updates; figures are always exact.
    bits : int
        Of an update's value (BFV).
    per_slot : int
        Values in a slot (BFV).
    range : float
        Values of an update lie within ±range.
    max_weight : int
        The most that an update may weigh.
    min_cohort : int
        The fewest whose sum may be seen.
    max_clients : int
        The most that are added up.
    degree : int
        Of the polynomials.
    pinned : bool
        Whether the key goes from and to clients in the roster only.
    """

    scheme: Scheme
    bits: int
    per_slot: int
    range: float
    max_weight: int
    min_cohort: int
    max_clients: int
    degree: int
    pinned: bool

    def updates(self, size: int) -> Packing:
        """Return how updates of so many values are packed.

        Raises
        ------
        FedproofError
            If sums do not fit.
        """
        cohort = Cohort(size, self.max_clients, self.max_weight, self.min_cohort)
        primes = PRIMES[self.degree]
        if self.scheme is Scheme.ckks:
            return ApproximatePacking(
                cohort, self.range, degree=self.degree, coefficient_bits=primes
            )
        return ExactPacking(
            cohort,
            Quantizer(self.range, self.bits),
            per_slot=self.per_slot,
            degree=self.degree,
            coefficient_bits=primes,
        )

    def figures(self, count: int) -> FigurePacking:
        """Return how so many figures are packed.

        Raises
        ------
        FedproofError
            If sums do not fit.
        """
        return FigurePacking(
            count,
            self.max_clients,
            self.min_cohort,
            degree=self.degree,
            coefficient_bits=PRIMES[self.degree],
        )

    @property
    def parameters(self) -> tuple[Parameters, ...]:
        """What keys are made for, each once."""
        return tuple(
            dict.fromkeys((self.updates(1).parameters, self.figures(1).packing.parameters))
        )
