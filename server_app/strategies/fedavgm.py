"""Server momentum (Hsu et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import FedAvgM, Strategy

from server_app.strategies._common import ON_CLIENTS
from task.options import real

SUM_SUFFICES = True


def build(options: Mapping[str, Any]) -> Strategy:
    """Build Flower's FedAvgM."""
    return FedAvgM(
        server_learning_rate=real(options, "strategy.server_learning_rate"),
        server_momentum=real(options, "strategy.server_momentum", below=1),
        **ON_CLIENTS,
    )
