"""Rules that look at each coordinate by itself (Yin et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor


def median(updates: Tensor) -> Tensor:
    """Return each coordinate's median, shape (p,): of an even number, the middle two's mean."""
    ordered = updates.sort(dim=0).values
    middle = len(updates) // 2
    if len(updates) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def trimmed_mean(updates: Tensor, cut: int) -> Tensor:
    """Return each coordinate's mean without its `cut` smallest and largest values, shape (p,).

    `cut` is less than half of the clients.
    """
    ordered = updates.sort(dim=0).values
    return ordered[cut : len(updates) - cut].mean(dim=0)


def mean_around_median(updates: Tensor, count: int) -> Tensor:
    """Return each coordinate's mean of the `count` values nearest to its median, shape (p,)."""
    offsets = (updates - median(updates)).abs()
    chosen = torch.topk(offsets, count, dim=0, largest=False).indices
    return updates.gather(0, chosen).mean(dim=0)
