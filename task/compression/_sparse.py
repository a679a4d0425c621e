"""How many values of a vector travel where only a share of them does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from task.options import real


def share_of(options: Mapping[str, Any]) -> float:
    """Return ``compression.share``.

    Raises
    ------
    FedproofError
        If it does not lie in (0, 1].
    """
    return real(options, "compression.share", positive=True, most=1)


def count_of(share: float, size: int) -> int:
    """Return how many of `size` values travel, at least one of any."""
    return min(size, max(1, round(share * size)))
