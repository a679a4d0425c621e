"""Coordinate-wise trimmed mean (Yin et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import FedTrimmedAvg, Strategy

from server_app.strategies._common import ON_CLIENTS
from task.options import real

GROUPS_SUFFICE = True


def build(options: Mapping[str, Any]) -> Strategy:
    """Build Flower's FedTrimmedAvg."""
    return FedTrimmedAvg(
        beta=real(options, "strategy.beta", below=0.5),
        **ON_CLIENTS,
    )
