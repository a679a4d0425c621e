"""The update nearest to its neighbours (Blanchard et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import Krum, Strategy

from server_app.strategies._common import ON_CLIENTS
from task.options import whole

GROUPS_SUFFICE = True


def build(options: Mapping[str, Any]) -> Strategy:
    """Build Flower's Krum."""
    return Krum(
        num_malicious_nodes=whole(options, "strategy.malicious", 0),
        **ON_CLIENTS,
    )
