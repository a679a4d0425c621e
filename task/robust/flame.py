"""The largest bunch of directions, clipped (Nguyen et al. 2022, FLAME)."""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from task.robust.clipping import clip_norms
from task.robust.distances import gram


def majority(distances: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> list[int]:
    """Return the densest cluster that holds more than half of all, ascending.

    HDBSCAN with ``min_cluster_size`` = n // 2 + 1, ``min_samples`` = 1 and a single cluster
    allowed, as FLAME uses it, can never split: two clusters cannot both hold more than half. What
    it returns is then the first component of single linkage to grow so large.
    """
    count = len(distances)
    if count < 3:
        return list(range(count))
    members: dict[int, list[int]] = {i: [i] for i in range(count)}
    merges = linkage(squareform(distances, checks=False), "single")
    for step, (left, right, _, size) in enumerate(merges):
        merged = members.pop(int(left)) + members.pop(int(right))
        if size > count // 2:
            return sorted(merged)
        members[count + step] = merged
    return list(range(count))


def cosine_distances(updates: Tensor) -> Tensor:
    """Return 1 - cos between all updates, shape (clients, clients); of a zero update, 1."""
    products = gram(updates)
    norms = products.diagonal().sqrt()
    scale = (norms[:, None] * norms[None, :]).clamp_min(torch.finfo(torch.float64).tiny)
    return (1 - products / scale).clamp_min_(0.0).fill_diagonal_(0.0)


def flame(updates: Tensor, noise: float, generator: torch.Generator) -> tuple[Tensor, list[int]]:
    """Return the aggregate and whose updates are in it.

    Algorithm 1: cluster by cosine, clip to the median norm of all, average, add noise. Directions
    are those of updates: those of whole models differ by less than their rounding.

    Parameters
    ----------
    updates : Tensor, shape (clients, p)
    noise : float
        λ: standard deviation of the noise in units of the median norm.
    generator : Generator
        Of the noise.

    Returns
    -------
    Tensor of shape (p,), list of int
    """
    admitted = majority(cosine_distances(updates).cpu().numpy())
    clipped, _ = clip_norms(updates)
    mean = clipped[admitted].mean(dim=0)
    norms = torch.linalg.vector_norm(updates, dim=1)
    return mean + noise * norms.median() * torch.randn(mean.shape, generator=generator), admitted
