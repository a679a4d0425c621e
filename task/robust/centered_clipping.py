"""Updates clipped around where the last aggregate was (Karimireddy et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor


def centered_clipping(
    updates: Tensor, center: Tensor, radius: float | None = None, steps: int = 1
) -> tuple[Tensor, Tensor]:
    """Return the aggregate, and which updates were clipped in the last step.

    Algorithm 2 without the clients' momentum: v ← v + mean(clip(u_i - v)).

    Parameters
    ----------
    updates : Tensor, shape (clients, p)
    center : Tensor, shape (p,)
        The aggregate of the round before; zero in the first.
    radius : float or None
        τ; None: the median of the distances to the centre, anew in each step.
    steps : int
        L.

    Returns
    -------
    Tensor of shape (p,), Tensor of bool of shape (clients,)
    """
    clipped = torch.zeros(len(updates), dtype=torch.bool)
    for _ in range(steps):
        offsets = updates - center
        distances = torch.linalg.vector_norm(offsets, dim=1, dtype=torch.float64)
        longest = distances.median() if radius is None else distances.new_tensor(radius)
        clipped = distances > longest
        factors = torch.where(clipped, longest / distances, torch.ones_like(distances))
        center = center + (factors.to(updates.dtype) / len(updates)) @ offsets
    return center, clipped
