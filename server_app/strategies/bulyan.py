"""Krum, then a trimmed mean (El Mhamdi et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import Bulyan, Strategy

from server_app.strategies._common import ON_CLIENTS
from task.options import whole

GROUPS_SUFFICE = True


def build(options: Mapping[str, Any]) -> Strategy:
    """Build Flower's Bulyan."""
    return Bulyan(
        num_malicious_nodes=whole(options, "strategy.malicious", 0),
        **ON_CLIENTS,
    )
