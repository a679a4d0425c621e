"""Updates mixed before any rule, so that honest ones differ less."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from task.robust.distances import nearest


def mix_neighbours(updates: Tensor, malicious: int) -> Tensor:
    """Replace each update by the mean of the clients - malicious nearest to it, shape (clients, p).

    Nearest-neighbour mixing: Allouah et al. 2023, Algorithm 2.
    """
    count = len(updates)
    kept = nearest(updates, count - malicious)
    weights = torch.zeros(count, count, dtype=updates.dtype, device=updates.device)
    weights.scatter_(1, kept, 1 / kept.shape[1])
    return weights @ updates


def buckets(count: int, size: int, generator: np.random.Generator) -> list[list[int]]:
    """Deal clients at random into buckets of `size`, the last may be smaller.

    Bucketing: Karimireddy et al. 2022, Algorithm 1; each bucket goes on as its mean.
    """
    order = generator.permutation(count).tolist()
    return [sorted(order[i : i + size]) for i in range(0, count, size)]


def bucket_means(updates: Tensor, groups: list[list[int]]) -> Tensor:
    """Return each bucket's mean, shape (buckets, p)."""
    weights = torch.zeros(len(groups), len(updates), dtype=updates.dtype, device=updates.device)
    for row, members in enumerate(groups):
        weights[row, members] = 1 / len(members)
    return weights @ updates
