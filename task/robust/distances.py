"""How far updates lie from each other."""

from __future__ import annotations

import torch
from torch import Tensor

_PIECE = 1 << 16
"""Coordinates whose products are summed at once: float64 copies stay small."""


def gram(updates: Tensor) -> Tensor:
    """Return all inner products in float64, shape (clients, clients)."""
    count = len(updates)
    total = torch.zeros(count, count, dtype=torch.float64, device=updates.device)
    for piece in torch.split(updates, _PIECE, dim=1):
        wide = piece.double()
        total.addmm_(wide, wide.T)
    return total


def squared_distances(updates: Tensor) -> Tensor:
    """Return ‖u_i - u_j‖² in float64, shape (clients, clients); zero on the diagonal.

    Products of float32 values are exact in float64, so what cancels is lost far below float32.
    """
    products = gram(updates)
    norms = products.diagonal()
    distances = (norms[:, None] + norms[None, :] - 2 * products).clamp_min_(0.0)
    return distances.fill_diagonal_(0.0)


def nearest(updates: Tensor, count: int) -> Tensor:
    """Return each client's `count` nearest ones, itself first, shape (clients, count)."""
    # Below zero, so that the client itself comes before its own duplicates.
    distances = squared_distances(updates).fill_diagonal_(-1.0)
    return distances.argsort(dim=1, stable=True)[:, :count]
