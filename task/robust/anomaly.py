"""How unlike the others a client's update is: evidence, not a defence."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from task.robust.coordinates import median

MOST = 1 << 15
"""Coordinates that are looked at; more are drawn from anew for each round."""
SUSPICIOUS = 3.5
"""Score from which Iglewicz and Hoaglin 1993 call a value an outlier."""
_TO_SIGMA = 0.6745
"""A normal distribution's median absolute deviation, in standard deviations."""


def anomaly_scores(updates: Tensor, generator: np.random.Generator) -> Tensor:
    """Return each client's distance to the coordinate-wise median, in robust standard units.

    Iglewicz and Hoaglin's modified z-score, 0.6745 · (d - median d) / MAD, of the distances d. A
    client that stays nearer than most has a negative one.

    Parameters
    ----------
    updates : Tensor, shape (clients, p)
    generator : numpy Generator
        Draws the coordinates, where there are more than `MOST`.

    Returns
    -------
    Tensor of float64, shape (clients,)
    """
    if updates.shape[1] > MOST:
        drawn = generator.integers(updates.shape[1], size=MOST)
        updates = updates[:, torch.from_numpy(np.sort(drawn))]
    offsets = updates.double() - median(updates).double()
    distances = torch.linalg.vector_norm(offsets, dim=1)
    middle = distances.median()
    deviation = (distances - middle).abs().median()
    # Where most are alike, whoever is not stands out, but not without bound.
    least = max(1e-6 * float(middle), torch.finfo(torch.float64).tiny)
    scores: Tensor = _TO_SIGMA * (distances - middle) / deviation.clamp_min(least)
    return scores
