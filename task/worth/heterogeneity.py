"""How unlike each other clients are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
OUTLYING = 3.5
"""Modified z-scores beyond this are outliers (Iglewicz and Hoaglin 1993)."""


def label_divergence(counts: Floats) -> Floats:
    """Return the Jensen-Shannon divergence of each client's labels from everybody's.

    Parameters
    ----------
    counts : ndarray, shape (clients, labels)
        Rows of each label; at least one row per client.

    Returns
    -------
    ndarray, shape (clients,)
        In bits: 0 if the labels are distributed as everybody's, 1 if they have none in common
        (Lin 1991, eq. 4.1).
    """
    own = counts / counts.sum(1, keepdims=True)
    everybody = counts.sum(0) / counts.sum()
    middle = (own + everybody) / 2
    return np.clip((_relative(own, middle) + _relative(everybody, middle)) / 2, 0.0, 1.0)


def _relative(p: Floats, q: Floats) -> Floats:
    """Return the Kullback-Leibler divergence of p from q in bits, over the last axis."""
    p = np.broadcast_to(p, q.shape)
    ratio = np.divide(p, q, out=np.ones_like(q), where=p > 0)
    return np.asarray((p * np.log2(ratio)).sum(-1))


def feature_shift(means: Sequence[Floats], variances: Sequence[Floats], rows: Floats) -> Floats:
    """Return how many standard deviations each client's features lie from everybody's.

    Parameters
    ----------
    means, variances : sequence of ndarray, shape (features,)
        Of each client's rows.
    rows : ndarray, shape (clients,)
        How many.

    Returns
    -------
    ndarray, shape (clients,)
        Root mean square over the features that vary at all.
    """
    centres, spreads = np.stack(means), np.stack(variances)
    share = (rows / rows.sum())[:, None]
    centre = (share * centres).sum(0)
    variance = (share * (spreads + (centres - centre) ** 2)).sum(0)
    varies = variance > 1e-12
    if not varies.any():
        return np.zeros(len(centres))
    scaled = (centres - centre)[:, varies] ** 2 / variance[varies]
    return np.asarray(np.sqrt(scaled.mean(1)))


def outlying_low(values: Floats, least: float) -> NDArray[np.bool_]:
    """Return which values are far below the others.

    A value is if its modified z-score, 0.6745 · (value - median) / MAD, is below -`OUTLYING`, and
    it is at least `least` below the median: of values that are nearly equal, none is. Of fewer
    than four nothing can be said.
    """
    if np.isfinite(values).sum() < 4:
        return np.zeros(len(values), dtype=bool)
    median = np.nanmedian(values)
    deviation = max(float(np.nanmedian(np.abs(values - median))), 1e-12)
    score = 0.6745 * (values - median) / deviation
    return np.asarray((score < -OUTLYING) & (median - values >= least))
