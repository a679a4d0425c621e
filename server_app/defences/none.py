"""No defence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def build(options: Mapping[str, Any], seed: int) -> None:
    """Return nothing: updates go to the strategy as they come."""
