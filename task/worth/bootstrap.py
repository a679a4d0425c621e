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

    def within(self, least: float, most: float) -> Interval:
        """Return it without what lies outside of what the values can be."""
        if self.low is None or self.high is None:
            return self
        return Interval(self.mean, max(self.low, least), min(self.high, most))

    def above(self, value: float) -> bool:
        """Tell whether all of the interval is above a value."""
        return self.low is not None and self.low > value

    def below(self, value: float) -> bool:
        """Tell whether all of the interval is below a value."""
        return self.high is not None and self.high < value


def interval(
    values: Values, seed: int = 0, *, comparisons: int = 1, resolution: float = 0.0
) -> Interval:
    """Return the mean over seeds and clients with its bootstrap interval.

    Both axes are resampled with replacement, independently of each other (the pigeonhole
    bootstrap, Owen 2007), because seeds share clients and clients share seeds. The interval is
    the mean ± t(n-1) · √(n/(n-1)) standard deviations of the resampled means, n being the longer
    axis: of few values percentiles would be too narrow (Hesterberg 2015, "What Teachers Should
    Know about the Bootstrap", on small samples). Of one client it is Student's interval.

    Parameters
    ----------
    values : ndarray, shape (seeds, clients)
        NaN where a client has no value.
    seed : int
        Of the resampling.
    comparisons : int
        How many intervals are read together; each is widened so that all of them hold the truth
        as often as one would (Bonferroni).
    resolution : float
        What single values are known to at best: seeds that agree by chance prove nothing.
    """
    values = values[:, ~np.isnan(values).all(0)]
    if not values.size:
        return Interval(math.nan)
    mean = float(np.nanmean(values))
    if values.size == 1:
        return Interval(mean)
    means = _resampled(values, np.random.default_rng(seed))
    count = max(values.shape)
    error = max(float(np.nanstd(means)), resolution / math.sqrt(count))
    reach = error * _stretch(count, comparisons)
    return Interval(mean, mean - reach, mean + reach)


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
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    upper = 1 - (1 - LEVEL) / 2 / comparisons
    return float(stdtrit(count - 1, upper) * math.sqrt(count / (count - 1)))
