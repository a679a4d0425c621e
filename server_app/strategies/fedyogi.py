"""Adaptive server optimiser with additive second moments (Reddi et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import FedYogi, Strategy

from server_app.strategies._common import ON_CLIENTS
from task.options import real

SUM_SUFFICES = True


def build(options: Mapping[str, Any]) -> Strategy:
    """Build Flower's FedYogi."""
    return FedYogi(
        eta=real(options, "strategy.eta"),
        beta_1=real(options, "strategy.beta_1", below=1),
        beta_2=real(options, "strategy.beta_2", below=1),
        tau=real(options, "strategy.tau"),
        **ON_CLIENTS,
    )
