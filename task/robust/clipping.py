"""Updates no longer than they may be."""

from __future__ import annotations

import torch
from torch import Tensor


def clip_norms(updates: Tensor, limit: float | None = None) -> tuple[Tensor, Tensor]:
    """Shorten long updates (Sun et al. 2019, "Can you really backdoor federated learning?").

    Parameters
    ----------
    updates : Tensor, shape (clients, p)
    limit : float or None
        Longest norm; None: the median of the norms, which less than half of the clients can move.

    Returns
    -------
    Tensor of shape (clients, p), Tensor of bool of shape (clients,)
        The updates, and which of them were longer.
    """
    norms = torch.linalg.vector_norm(updates, dim=1, dtype=torch.float64)
    longest = norms.median() if limit is None else norms.new_tensor(limit)
    clipped = norms > longest
    factors = torch.where(clipped, longest / norms, torch.ones_like(norms))
    return updates * factors.to(updates.dtype)[:, None], clipped
