"""Nearest-neighbour mixing before a robust rule (Allouah et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from server_app.defences.base import Defence, Stack
from server_app.strategies._robust import assumed
from task.robust.mixing import mix_neighbours


class NearestNeighbourMixing(Defence):
    """Replaces each update by the mean of those nearest to it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        assumed(options, 0, "defence")
        self._options = dict(options)

    def apply(self, stack: Stack, number: int) -> tuple[Stack, dict[str, list[int]]]:
        """Mix."""
        count = len(stack.updates)
        malicious = min(assumed(self._options, count, "defence"), count - 1)
        return replace(stack, updates=mix_neighbours(stack.updates, malicious)), {}


def build(options: Mapping[str, Any], seed: int) -> Defence:
    """Build from ``malicious``."""
    return NearestNeighbourMixing(options)
