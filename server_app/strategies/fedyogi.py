"""Adaptive server optimiser with additive second moments (Reddi et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import FedYogi, Strategy

from server_app.strategies._common import ON_CLIENTS, number


def build(options: Mapping[str, Any]) -> Strategy:
    """Build Flower's FedYogi."""
    return FedYogi(
        eta=number(options, "eta"),
        beta_1=number(options, "beta_1", 0.0, 1.0),
        beta_2=number(options, "beta_2", 0.0, 1.0),
        tau=number(options, "tau"),
        **ON_CLIENTS,
    )
