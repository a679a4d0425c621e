"""What every strategy of Flower's is built with here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from conf.errors import FedproofError

ON_CLIENTS: Final[dict[str, Any]] = {
    "fraction_train": 1.0,
    "fraction_evaluate": 1.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "min_available_nodes": 1,
}
"""Clients are sampled before a strategy sees them (`federation.sampling`): it takes all it sees."""


def number(
    options: Mapping[str, Any], name: str, least: float = 0.0, below: float = float("inf")
) -> Any:
    """Return an option, with its own type.

    Raises
    ------
    FedproofError
        If it is not in [least, below).
    """
    value = options[name]
    if not least <= value < below:
        limit = "" if below == float("inf") else f" and below {below:g}"
        raise FedproofError(f"strategy.{name} must be at least {least:g}{limit}, got {value}.")
    return value
