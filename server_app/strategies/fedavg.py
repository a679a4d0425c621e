"""Federated averaging (McMahan et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import FedAvg, Strategy

from server_app.strategies._common import ON_CLIENTS

SUM_SUFFICES = True


def build(options: Mapping[str, Any]) -> Strategy:
    """Build Flower's FedAvg."""
    return FedAvg(**ON_CLIENTS)
