"""Server momentum (Hsu et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import FedAvgM, Strategy

from server_app.strategies._common import ON_CLIENTS, number


def build(options: Mapping[str, Any]) -> Strategy:
    """Build Flower's FedAvgM."""
    return FedAvgM(
        server_learning_rate=number(options, "server_learning_rate"),
        server_momentum=number(options, "server_momentum", 0.0, 1.0),
        **ON_CLIENTS,
    )
