"""Inner-product manipulation (Xie et al. 2020): against the honest mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from task.attacks.base import Attack, Omniscient
from task.options import real


class IPM(Omniscient):
    """Send -ε times the honest mean."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._epsilon = real(options, "attack.epsilon", positive=True)

    def forge(self, honest: Tensor, attackers: int) -> Tensor:
        """Return -ε times the mean (section 3)."""
        return -self._epsilon * honest.mean(dim=0)


def build(options: Mapping[str, Any]) -> Attack:
    """Build from ``epsilon``."""
    return IPM(options)
