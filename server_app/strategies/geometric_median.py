"""The geometric median of updates, RFA (Pillutla et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import Strategy
from torch import Tensor

from server_app.strategies._robust import Robust
from task.options import real, whole
from task.robust.geometric_median import geometric_median

GROUPS_SUFFICE = True


class GeometricMedian(Robust):
    """Moves the model by the geometric median, every client counting once."""

    def __init__(self, smoothing: float, steps: int) -> None:
        super().__init__()
        self._smoothing, self._steps = smoothing, steps

    def rule(self, updates: Tensor, number: int) -> Tensor:
        """Iterate to the median."""
        return geometric_median(updates, self._smoothing, self._steps)[0]


def build(options: Mapping[str, Any]) -> Strategy:
    """Build from ``smoothing`` and ``steps``."""
    smoothing = real(options, "strategy.smoothing", positive=True)
    return GeometricMedian(smoothing, whole(options, "strategy.steps", 1))
