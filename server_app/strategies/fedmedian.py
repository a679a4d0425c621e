"""Coordinate-wise median (Yin et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import FedMedian, Strategy

from server_app.strategies._common import ON_CLIENTS

GROUPS_SUFFICE = True


def build(options: Mapping[str, Any]) -> Strategy:
    """Build Flower's FedMedian."""
    return FedMedian(**ON_CLIENTS)
