"""Means with confidence intervals, over seeds and clients."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
RESAMPLES = 2000
LEVEL = 0.95
_BLOCK = 4_000_000
"""Values that are resampled at once: 32 MB."""


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval; without bounds where nothing was repeated."""

    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return self.low is not None

    def above(self, value: float) -> bool:
        """Tell whether all of the interval is above a value."""
        return self.low is not None and self.low > value

    def below(self, value: float) -> bool:
        """Tell whether all of the interval is below a value."""
        return self.high is not None and self.high < value


def interval(values: Values, seed: int = 0, comparisons: int = 1) -> Interval:
    """Return the mean over seeds and clients with its bootstrap interval.

    Both axes are resampled with replacement, independently of each other (the pigeonhole
    bootstrap, Owen 2007), because seeds share clients and clients share seeds. The percentiles
    are stretched from the mean by t(n-1) / z · sqrt(n / (n-1)), n being the longer axis, since
    a bootstrap of few values is too narrow (Hesterberg 2015, "What Teachers Should Know about the
    Bootstrap", on small samples).

    Parameters
    ----------
    values : ndarray, shape (seeds, clients)
        NaN where a client has no value.
    seed : int
        Of the resampling.
    comparisons : int
        How many intervals are read together; each is widened so that all of them hold the truth
        as often as one would (Bonferroni).
    """
    values = values[:, ~np.isnan(values).all(0)]
    if not values.size:
        return Interval(math.nan)
    mean = float(np.nanmean(values))
    if values.size == 1:
        return Interval(mean)
    means = _resampled(values, np.random.default_rng(seed))
    tail = 50 * (1 - LEVEL)
    low, high = (float(v) for v in np.nanpercentile(means, [tail, 100 - tail]))
    stretch = _stretch(max(values.shape), comparisons)
    return Interval(mean, mean - (mean - low) * stretch, mean + (high - mean) * stretch)


def level(values: Values) -> Interval:
    """Return the same for values that are not differences: rates stay between 0 and 1."""
    found = interval(values)
    if found.low is None or found.high is None or np.nanmin(values) < 0 or np.nanmax(values) > 1:
        return found
    return Interval(found.mean, max(found.low, 0.0), min(found.high, 1.0))


def _resampled(values: Values, rng: np.random.Generator) -> Values:
    seeds, clients = values.shape
    block = max(1, _BLOCK // values.size)
    parts = []
    for first in range(0, RESAMPLES, block):
        count = min(block, RESAMPLES - first)
        rows = rng.integers(seeds, size=(count, seeds, 1))
        columns = rng.integers(clients, size=(count, 1, clients))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # all of a resample undefined
            parts.append(np.nanmean(values[rows, columns], axis=(1, 2)))
    return np.concatenate(parts)


def _stretch(count: int, comparisons: int) -> float:
    from scipy.stats import norm, t

    tail = (1 - LEVEL) / 2
    wide = t.ppf(1 - tail / comparisons, count - 1) / norm.ppf(1 - tail)
    return float(wide * math.sqrt(count / (count - 1)))
