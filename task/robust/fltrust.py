"""Trust in what points where clean data points (Cao et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor


def fltrust(updates: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of updates by trust, each as long as the root's, and the trust in each.

    Algorithm 2, lines 6 to 9: trust is the cosine between an update and the root's, nothing below
    zero. Without any trust the aggregate is zero: the model stays.

    Parameters
    ----------
    updates : Tensor, shape (clients, p)
    root : Tensor, shape (p,)
        The update that the server trained itself.

    Returns
    -------
    Tensor of shape (p,), Tensor of float64 of shape (clients,)
    """
    norms = torch.linalg.vector_norm(updates, dim=1, dtype=torch.float64)
    length = torch.linalg.vector_norm(root, dtype=torch.float64)
    products = (updates @ root).double()
    cosines = products / (norms * length).clamp_min(torch.finfo(torch.float64).tiny)
    trust = cosines.clamp_min(0.0)
    whole = trust.sum()
    if whole == 0:
        return torch.zeros_like(root), trust
    weights = trust / whole * length / norms.clamp_min(torch.finfo(torch.float64).tiny)
    return weights.to(updates.dtype) @ updates, trust
