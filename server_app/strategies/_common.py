"""What every strategy of Flower's is built with here."""

from __future__ import annotations

from typing import Any, Final

ON_CLIENTS: Final[dict[str, Any]] = {
    "fraction_train": 1.0,
    "fraction_evaluate": 1.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "min_available_nodes": 1,
}
"""Clients are sampled before a strategy sees them (`federation.sampling`): it takes all it sees."""
