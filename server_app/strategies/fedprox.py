"""Proximal term in local training (Li et al. 2020); the clients apply it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import FedProx, Strategy

from server_app.strategies._common import ON_CLIENTS
from task.options import real

SUM_SUFFICES = True


def build(options: Mapping[str, Any]) -> Strategy:
    """Build Flower's FedProx."""
    return FedProx(
        proximal_mu=real(options, "strategy.proximal_mu"),
        **ON_CLIENTS,
    )
