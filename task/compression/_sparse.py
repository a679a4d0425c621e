"""How many values of a vector travel where only a share of them does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conf.errors import FedproofError
from task.options import real


def share_of(options: Mapping[str, Any]) -> float:
    """Return ``compression.share``.

    Raises
    ------
    FedproofError
        If it does not lie in (0, 1].
    """
    share = real(options, "compression.share", positive=True)
    if share > 1:
        raise FedproofError(f"compression.share must lie in (0, 1], got {share:g}.")
    return share


def count_of(share: float, size: int) -> int:
    """Return how many of `size` values travel, at least one of any."""
    return min(size, max(1, round(share * size)))
