"""A little is enough (Baruch et al. 2019): a shift that hides within the honest spread."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

from torch import Tensor

from task.attacks.base import Attack, Omniscient, scatter
from task.options import real


class ALIE(Omniscient):
    """Send the honest mean minus z standard deviations, coordinate by coordinate."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._z = None if options["z"] is None else real(options, "attack.z")

    def forge(self, honest: Tensor, attackers: int) -> Tensor:
        """Return the shifted mean (Algorithm 3)."""
        z = self._z if self._z is not None else largest_z(len(honest) + attackers, attackers)
        return honest.mean(dim=0) - z * scatter(honest)


def largest_z(clients: int, attackers: int) -> float:
    """Return the largest z by which attackers can still have a majority beyond them (eq. 3, 4).

    Below zero, where they are too few to need any honest client's company, it is zero.
    """
    supporters = clients // 2 + 1 - attackers
    share = (clients - attackers - supporters) / max(clients - attackers, 1)
    return NormalDist().inv_cdf(min(max(share, 0.5), 1 - 1e-6))


def build(options: Mapping[str, Any]) -> Attack:
    """Build from ``z``; None follows the paper."""
    return ALIE(options)
