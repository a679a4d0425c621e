"""How alike clients are, where their rows are on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from task.pooled import Pooled
from task.worth.heterogeneity import Floats, feature_shift, label_divergence


def likeness(pooled: Pooled, clients: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return each client's label divergence and feature shift, as far as its rows have them.

    Both are of training rows as the model sees them, so after scaling.
    """
    rows = {client: pooled.rows(client)[0] for client in clients}
    found: dict[str, dict[str, float]] = {client: {} for client in clients}
    counts = [_label_counts(part.y) for part in rows.values()]
    if all(count is not None for count in counts):
        for client, value in zip(clients, label_divergence(_aligned(counts)), strict=True):
            found[client]["label_divergence"] = round(float(value), 5)
    if all(part.x.is_floating_point() for part in rows.values()):
        moments = [_moments(part.x) for part in rows.values()]
        sizes = np.array([len(part) for part in rows.values()], dtype=np.float64)
        shifts = feature_shift([m for m, _ in moments], [v for _, v in moments], sizes)
        for client, value in zip(clients, shifts, strict=True):
            found[client]["feature_shift"] = round(float(value), 5)
    return found


def _label_counts(targets: Tensor) -> Floats | None:
    """Return the rows of each label; None for a target that is a quantity."""
    if targets.is_floating_point():
        if not torch.all((targets == 0) | (targets == 1)):
            return None
        targets = targets.long()
    values = targets[targets >= 0].reshape(-1)
    return np.asarray(torch.bincount(values).numpy(), dtype=np.float64)


def _aligned(counts: Sequence[Any]) -> Floats:
    width = max(len(count) for count in counts)
    return np.stack([np.pad(count, (0, width - len(count))) for count in counts])


def _moments(x: Tensor) -> tuple[Floats, Floats]:
    flat = x.reshape(len(x), -1).double()
    return flat.mean(0).numpy(), flat.var(0, unbiased=False).numpy()
