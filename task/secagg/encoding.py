"""Updates and figures as integers modulo 2^b, and what sums of them stand for.

A vector holds an update, each value as a fixed-point number, and then figures (weights, metrics),
which need more digits and get them in several pieces. No sum of a whole cohort reaches the modulus:
what could is refused before it is encoded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conf.errors import FedproofError
from task.bounds import require_within
from task.privacy.discrete.keystream import KeyStream
from task.secagg.masks import TYPES, Words
from task.secagg.session import Terms

FIGURE_BITS, FRACTION_BITS = 64, 20
"""A figure is a multiple of 2^-20 below 2^43 in magnitude."""
LARGEST = 2.0 ** (FIGURE_BITS - 1 - FRACTION_BITS)


def summable(value: float) -> float:
    """Return a figure that fits into a hidden sum; one that is no number is the largest that does.

    Whether a client's figures fit depends on its rows, and must not show.
    """
    largest = LARGEST * (1 - 2.0**-10)
    return largest if math.isnan(value) else max(-largest, min(value, largest))


@dataclass(frozen=True)
class Encoding:
    """How the vectors of one session are made.

    Attributes
    ----------
    terms : Terms
    clients : int
        The most that are added up.
    size, figures : int
        Values of an update, and figures besides.
    """

    terms: Terms
    clients: int
    size: int
    figures: int

    def __post_init__(self) -> None:
        if self._scale <= 0 or self._piece < 1:
            raise FedproofError(
                f"sums of {self.clients} clients do not fit into {self.terms.bits} bits: set "
                "aggregation.bits=32, or sample fewer clients."
            )

    @property
    def length(self) -> int:
        """Length of a vector."""
        return self.size + self.figures * self._pieces

    @property
    def error(self) -> float:
        """No value of a sum of weighted updates errs by more."""
        return self.clients * self._rounding / self._scale

    def encode(self, update: Tensor, weight: int, figures: Sequence[float]) -> Words:
        """Return a client's vector.

        Parameters
        ----------
        update : Tensor of float, shape (size,)
            Values within ±`Terms.range`.
        weight : int
            What they are multiplied by.
        figures : sequence of float
            As many as were declared; below 2^43 in magnitude.

        Raises
        ------
        FedproofError
            If one of them is beyond what was declared. What it is does not show.
        """
        terms = self.terms
        require_within(update, weight, terms.range, terms.max_weight)
        scaled = update.detach().to(torch.float64, copy=True).mul_(weight * self._scale).numpy()
        if terms.stochastic:
            scaled += KeyStream().uniform(len(scaled))
            np.floor(scaled, out=scaled)
        else:
            np.rint(scaled, out=scaled)
        return self.join(scaled.astype(np.int64), figures)

    def join(self, integers: NDArray[np.int64], figures: Sequence[float]) -> Words:
        """Return a vector of integers, whose sums are known modulo 2^b, and figures."""
        words = np.empty(self.length, TYPES[self.terms.bits])
        words[: self.size] = integers.astype(words.dtype)
        if len(figures) != self.figures or not all(abs(f) < LARGEST for f in figures):
            raise FedproofError("a figure of its training or evaluation is too large to be summed.")
        # Shifted to be positive, so that pieces of sums need no sign.
        numbers = [round(f * 2**FRACTION_BITS) + (1 << FIGURE_BITS - 1) for f in figures]
        pieces = [n >> i & (1 << self._piece) - 1 for n in numbers for i in self._shifts]
        words[self.size :] = pieces
        return words

    def decode(self, total: Words, clients: int) -> tuple[NDArray[np.float64], list[float]]:
        """Return what the sum of the vectors of so many clients stands for.

        Returns
        -------
        float64 array, shape (size,), and list of float
            Sums of the weighted updates and of the figures.
        """
        return self.signed(total) / self._scale, self.read(total, clients)

    def signed(self, total: Words) -> NDArray[np.int64]:
        """Return the integers of a sum, as numbers between -2^(b-1) and 2^(b-1)."""
        signed: NDArray[np.int64] = total[: self.size].view(f"<i{total.itemsize}").astype(np.int64)
        return signed

    def read(self, total: Words, clients: int) -> list[float]:
        """Return the figures of a sum of the vectors of so many clients."""
        pieces = total[self.size :].tolist()
        shift = clients << FIGURE_BITS - 1
        return [
            (sum(p << i for p, i in zip(pieces[k : k + self._pieces], self._shifts, strict=True))
             - shift) / 2**FRACTION_BITS
            for k in range(0, len(pieces), self._pieces)
        ]  # fmt: skip

    @property
    def _rounding(self) -> float:
        return 1.0 if self.terms.stochastic else 0.5

    @property
    def _scale(self) -> float:
        """What a weighted value is multiplied by, so that a sum of all cannot reach 2^(b-1)."""
        terms = self.terms
        room = 2.0 ** (terms.bits - 1) - 1 - self.clients * self._rounding
        # A little less, lest the product itself is rounded up.
        return room / (self.clients * terms.max_weight * terms.range) * (1 - 2.0**-40)

    @property
    def _piece(self) -> int:
        """Bits of a figure that a word holds, with room for the sum of all clients'."""
        return self.terms.bits - math.ceil(math.log2(self.clients + 1))

    @property
    def _pieces(self) -> int:
        return -(-FIGURE_BITS // self._piece)

    @property
    def _shifts(self) -> list[int]:
        return [i * self._piece for i in range(self._pieces)]
