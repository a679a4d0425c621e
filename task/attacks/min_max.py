"""Min-max (Shejwalkar and Houmansadr 2021): no farther from anyone than two honest ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from task.attacks._farthest import Farthest, root
from task.attacks.base import Attack
from task.robust.distances import squared_distances


class MinMax(Farthest):
    """The largest distance to an honest update is at most that between two of them."""

    def longest(self, honest: Tensor, lengths: Tensor, slopes: Tensor) -> Tensor:
        """Return γ of equation 9."""
        return root(lengths, slopes, squared_distances(honest).max()).min()


def build(options: Mapping[str, Any]) -> Attack:
    """Build from ``direction``."""
    return MinMax(options)
