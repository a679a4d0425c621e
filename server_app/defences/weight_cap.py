"""No client weighs more than a few others together."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from server_app.defences.base import Defence, Stack
from task.options import real


class WeightCap(Defence):
    """Caps weights at a multiple of the round's median weight, which few cannot move."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def apply(self, stack: Stack, number: int) -> tuple[Stack, dict[str, list[int]]]:
        """Cap."""
        most = max(1, int(self._factor * statistics.median_low(stack.weights)))
        capped = [row for row, weight in enumerate(stack.weights) if weight > most]
        weights = tuple(min(weight, most) for weight in stack.weights)
        return replace(stack, weights=weights), {"capped": stack.within(capped)}


def build(options: Mapping[str, Any], seed: int) -> Defence:
    """Build from ``factor``."""
    return WeightCap(real(options, "defence.factor", positive=True))
