"""Min-sum (Shejwalkar and Houmansadr 2021): no farther from all than the farthest honest one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from task.attacks._farthest import Farthest, root
from task.attacks.base import Attack
from task.robust.distances import squared_distances


class MinSum(Farthest):
    """The squared distances to all honest updates sum up to at most those of an honest one."""

    def longest(self, honest: Tensor, lengths: Tensor, slopes: Tensor) -> Tensor:
        """Return γ of equation 10, divided by the number of clients."""
        most = squared_distances(honest).sum(dim=1).max() / len(honest)
        return root(lengths.mean(), slopes.mean(), most)


def build(options: Mapping[str, Any]) -> Attack:
    """Build from ``direction``."""
    return MinSum(options)
