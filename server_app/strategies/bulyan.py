"""Repeated Krum, then each coordinate's mean around its median (El Mhamdi et al. 2018).

Flower's chooses by one Krum instead of repeated ones, on distances that lose small updates
(`server_app.strategies.multikrum`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import Strategy
from torch import Tensor

from server_app.strategies._robust import Robust, assumed
from task.robust.coordinates import mean_around_median
from task.robust.krum import repeated_krum

GROUPS_SUFFICE = True


class Bulyan(Robust):
    """Needs 4·malicious + 3 clients."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        assumed(options, 0)
        self._options = dict(options)

    def rule(self, updates: Tensor, number: int) -> Tensor | None:
        """Choose clients - 2·malicious, and of those the clients - 4·malicious nearest values."""
        count = len(updates)
        malicious = assumed(self._options, count)
        if self._options["malicious"] is None:
            malicious = min(malicious, max(0, (count - 3) // 4))
        if count < 4 * malicious + 3:
            return None
        chosen = repeated_krum(updates, malicious, count - 2 * malicious)
        self.keep(count, chosen.tolist())
        return mean_around_median(updates[chosen], count - 4 * malicious)


def build(options: Mapping[str, Any]) -> Strategy:
    """Build from ``malicious``."""
    return Bulyan(options)
