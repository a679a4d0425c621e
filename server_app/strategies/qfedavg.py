"""Fairer losses across clients (Li et al. 2020, q-FFL)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import QFedAvg, Strategy

from server_app.strategies._common import ON_CLIENTS
from task.options import real


def build(options: Mapping[str, Any]) -> Strategy:
    """Build Flower's QFedAvg."""
    return QFedAvg(
        client_learning_rate=real(options, "strategy.client_learning_rate", positive=True),
        q=real(options, "strategy.q"),
        train_loss_key="loss",
        **ON_CLIENTS,
    )
