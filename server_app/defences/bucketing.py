"""Random buckets of updates, whose means go on to a robust rule (Karimireddy et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server_app.defences.base import Defence, Stack
from task.options import whole
from task.robust.mixing import bucket_means, buckets
from task.seeding import generator


class Bucketing(Defence):
    """Deals the answers anew in each round."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed = size, seed

    def apply(self, stack: Stack, number: int) -> tuple[Stack, dict[str, list[int]]]:
        """Deal, and average within buckets, every answer counting once there."""
        rng = generator(self._seed, "bucketing", number)
        groups = buckets(len(stack.updates), self._size, rng)
        return Stack(
            bucket_means(stack.updates, groups),
            tuple(sum(stack.weights[row] for row in group) for group in groups),
            tuple(tuple(stack.within(group)) for group in groups),
        ), {}


def build(options: Mapping[str, Any], seed: int) -> Defence:
    """Build from ``size``."""
    return Bucketing(whole(options, "defence.size", 1), seed)
