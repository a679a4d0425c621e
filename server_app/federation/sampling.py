"""Which clients take part in a round: a function of seed, round and client ids alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from task.seeding import generator


def sample(clients: Sequence[str], fraction: float, seed: int, *labels: str | int) -> list[str]:
    """Draw a cohort without replacement.

    Parameters
    ----------
    clients : sequence of str
        Who is available; their order does not matter.
    fraction : float
        Share to draw (`size_of`).
    seed : int
        The run's seed.
    *labels
        What the draw is for: purpose, round, attempt.

    Returns
    -------
    list of str
        Sorted ids.
    """
    ordered = sorted(clients)
    size = size_of(len(ordered), fraction)
    if size == len(ordered):
        return ordered
    chosen = generator(seed, "sample", *labels).choice(len(ordered), size, replace=False)
    return [ordered[i] for i in sorted(chosen)]


def size_of(count: int, fraction: float) -> int:
    """Return a share of some clients, at least one: max(C·K, 1) in McMahan et al. 2017."""
    return min(count, max(1, math.floor(fraction * count + 1e-9)))
