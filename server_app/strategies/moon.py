"""MOON: a model-contrastive loss at the clients (Li et al. 2021); the server averages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import FedAvg, Strategy

from server_app.strategies._common import ON_CLIENTS

SUM_SUFFICES = True


def build(options: Mapping[str, Any]) -> Strategy:
    """Build Flower's FedAvg; ``mu`` and ``temperature`` are the clients'."""
    return FedAvg(**ON_CLIENTS)
