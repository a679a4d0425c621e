"""The update nearest to its neighbours (Blanchard et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import Strategy

from server_app.strategies.multikrum import MultiKrum

GROUPS_SUFFICE = True


def build(options: Mapping[str, Any]) -> Strategy:
    """Build from ``malicious``."""
    return MultiKrum({**options, "select": 1})
