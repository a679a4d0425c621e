"""The point whose distances to all updates sum up to the least."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 100
_CLOSE = 1e-7
"""Relative movement below which the iteration has arrived."""


def geometric_median(
    updates: Tensor, smoothing: float = 1e-6, steps: int = STEPS, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the median, and the weights that it gives to the updates.

    Smoothed Weiszfeld iteration of Pillutla et al. 2022, Algorithm 2, with equal weights: what
    clients claim to have as rows is a lever that a liar would pull.

    Parameters
    ----------
    updates : Tensor, shape (clients, p)
    smoothing : float
        Distances count as at least this (ν).
    steps : int
        At most.
    start : Tensor of shape (p,), or None
        None: the mean.

    Returns
    -------
    Tensor of shape (p,), Tensor of float64 of shape (clients,)
        The weights sum up to one.
    """
    place = updates.mean(dim=0) if start is None else start
    weights = torch.full((len(updates),), 1 / len(updates), dtype=torch.float64)
    for _ in range(steps):
        distances = torch.linalg.vector_norm(updates - place, dim=1, dtype=torch.float64)
        weights = 1 / distances.clamp_min(smoothing)
        weights /= weights.sum()
        before, place = place, weights.to(updates.dtype) @ updates
        if (place - before).norm() <= _CLOSE * place.norm():
            break
    return place, weights
