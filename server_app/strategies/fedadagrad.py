"""Adaptive server optimiser without forgetting (Reddi et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import FedAdagrad, Strategy

from server_app.strategies._common import ON_CLIENTS
from task.options import real

SUM_SUFFICES = True


def build(options: Mapping[str, Any]) -> Strategy:
    """Build Flower's FedAdagrad."""
    return FedAdagrad(
        eta=real(options, "strategy.eta"),
        tau=real(options, "strategy.tau"),
        **ON_CLIENTS,
    )
