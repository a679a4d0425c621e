"""Client-level privacy without a trusted server: clients add the noise, a secure sum hides them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from conf.errors import FedproofError
from conf.schema import Settings
from task.options import choice, real, whole
from task.privacy.accounting import Spend
from task.privacy.base import Privacy
from task.privacy.discrete.accounting import RELATION, Noise, as_spend
from task.privacy.discrete.mechanism import Mechanism, design


@dataclass(frozen=True)
class NoisyUpdate:
    """What a client does with its update, and what that costs it.

    Attributes
    ----------
    clip : float
        Norm that the update must not exceed.
    spend : Spend
        As planned; for a sum that is known, as `DistributedDP.spend` tells.
    """

    clip: float
    spend: Spend


class DistributedDP(Privacy):
    """Settings of ``privacy=distributed_dp``, checked.

    Attributes
    ----------
    clip : float
        Norm that no update exceeds.
    bits : int
        b: sums are known modulo 2^b.
    colluders : int
        Clients whose noise is known to whoever looks at a sum.

    Raises
    ------
    FedproofError
        If the settings cannot protect anybody.
    """

    unit = "client"
    relation = RELATION

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        options: Mapping[str, Any] = settings.privacy.options
        self._rounds = settings.rounds
        self.clip = real(options, "privacy.clip", positive=True)
        self._kind = Noise(choice(options, "privacy.noise", tuple(Noise)))
        self.colluders = whole(options, "privacy.colluders", 0)
        if settings.aggregation.name != "secagg":
            raise FedproofError(
                "privacy=distributed_dp hides each client's part of the noise in a secure sum: "
                "add aggregation=secagg."
            )
        self.bits = int(settings.aggregation.options["bits"])

    @cached_property
    def sigma(self) -> float:
        """Noise multiplier of the sum, given or solved for ``privacy.epsilon``.

        Raises
        ------
        FedproofError
            If no noise is enough.
        """
        return self._noise(1.0, self._rounds)

    def over(self, rounds: int, client: str = "", rows: int = 1) -> Spend:
        """Return what so many rounds cost, but for rounding, if everybody contributes."""
        del client, rows
        return Spend(self.sigma, 1.0, rounds)

    def mechanism(self, client: str, rows: int) -> NoisyUpdate:
        """Return what a client with so many training rows does in a round."""
        del client, rows
        return NoisyUpdate(self.clip, self.over(1))

    def encoding(self, dimension: int, clients: int) -> Mechanism:
        """Return how the clients of a sum encode updates of that length.

        Raises
        ------
        FedproofError
            If the sum does not fit into the bits.
        """
        # What was solved for is the noise of those who do not collude.
        sigma = self.sigma / (self._unknown(clients) if self.solves else 1.0)
        return _designed(dimension, self.clip, self.bits, clients, (sigma, self._kind))

    def counted(self, clients: int) -> float:
        """Return the noise multiplier of a sum of so many without that of colluders."""
        return self.sigma * (1.0 if self.solves else self._unknown(clients))

    def _unknown(self, clients: int) -> float:
        """Return by what factor a sum's noise is less to those who know the colluders' part."""
        return math.sqrt(max(1, clients - self.colluders) / clients)

    def spend(self, dimension: int, clients: int, contributors: int) -> Spend:
        """Return what a sum costs those in it.

        Parameters
        ----------
        dimension : int
            Length of an update.
        clients : int
            Who were asked, and made noise for so many.
        contributors : int
            Whose vectors the sum holds.
        """
        honest = max(0, contributors - self.colluders)
        return as_spend(self.encoding(dimension, clients).release(honest))


@lru_cache(maxsize=64)
def _designed(
    dimension: int, clip: float, bits: int, clients: int, noise: tuple[float, Noise]
) -> Mechanism:
    sigma, kind = noise
    return design(dimension, clip, bits, clients, sigma, noise=kind)


build = DistributedDP
