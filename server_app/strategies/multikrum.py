"""Mean of the updates nearest to their neighbours (Blanchard et al. 2017).

Flower's measures distances between whole models in float32 by ‖x‖² + ‖y‖² - 2xy, of which nothing
is left once updates are small beside the model, and weighs by what clients claim to have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import Strategy
from torch import Tensor

from server_app.strategies._robust import Robust, assumed
from task.options import whole
from task.robust.krum import multi_krum

GROUPS_SUFFICE = True


class MultiKrum(Robust):
    """Averages so many updates of the lowest scores."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        assumed(options, 0)
        self._options = dict(options)
        if options["select"] is not None:
            whole(options, "strategy.select", 1)

    def rule(self, updates: Tensor, number: int) -> Tensor | None:
        """Average the chosen ones; of 2·malicious + 2 or fewer clients none can be chosen."""
        count = len(updates)
        malicious = assumed(self._options, count)
        if count < 2 * malicious + 3:
            return None
        chosen = multi_krum(updates, malicious, self._options["select"] or count - malicious)
        self.keep(count, chosen.tolist())
        return updates[chosen].mean(dim=0)


def build(options: Mapping[str, Any]) -> Strategy:
    """Build from ``malicious`` and ``select``."""
    return MultiKrum(options)
