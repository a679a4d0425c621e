"""Updates with differential privacy as integers modulo 2^b."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from task.privacy.discrete.mechanism import Mechanism, decode, encode
from task.privacy.discrete.rotation import padded
from task.secagg.encoding import Encoding
from task.secagg.masks import Words
from task.secagg.session import Terms


@dataclass(frozen=True)
class NoisyEncoding:
    """How the vectors of one session with distributed differential privacy are made.

    Attributes
    ----------
    terms, clients, figures
        As in `Encoding`; figures get no noise.
    mechanism : Mechanism
        Clips, rotates, rounds and noises updates.
    seed : bytes
        Of the rotation, public.
    """

    terms: Terms
    clients: int
    figures: int
    mechanism: Mechanism
    seed: bytes

    @property
    def length(self) -> int:
        """Length of a vector."""
        return self._plain.length

    @property
    def error(self) -> float:
        """No value errs by more than so much, but for clipping and noise."""
        return self.clients * self.mechanism.granularity

    def encode(self, update: Tensor, weight: int, figures: Sequence[float]) -> Words:
        """Return a client's vector; every update weighs the same.

        Raises
        ------
        FedproofError
            If the update is not finite, or a figure too large.
        """
        assert weight == 1
        noisy = encode(update, self.mechanism, self.seed)
        return self._plain.join(noisy.astype(np.int64), figures)

    def decode(self, total: Words, clients: int) -> tuple[NDArray[np.float64], list[float]]:
        """Return the noisy sum of the updates of so many clients, and the sums of the figures."""
        words = total[: self._plain.size].astype(np.uint32)
        update = decode(words, self.mechanism, self.seed).double().numpy()
        return update, self._plain.read(total, clients)

    @property
    def _plain(self) -> Encoding:
        size = padded(self.mechanism.dimension)
        return Encoding(self.terms, self.clients, size, self.figures)
