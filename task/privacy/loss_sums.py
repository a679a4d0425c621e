"""What independent privacy losses come to together.

Sums are convolved by FFT after tilting (Esscher), so that δ has the relative precision of numbers,
however small it is. What the window of a sum leaves out, and what the FFT rounds away, is added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import fft
from scipy.optimize import minimize_scalar

from task.privacy.losses import (
    MOST_LOSS,
    ROUNDING,
    Array,
    Cells,
    Kind,
    TooManyCellsError,
    cells_of,
    mean_square,
)

_SHARE = 0.08
"""Width of a cell over the losses' deviation: rounding adds its square / 6 to the variance."""
_MOST_SUMS = 1 << 22
"""Losses of a sum."""
_COARSER = 5
"""How often cells are made twice as wide where there are too many: ε is then less tight."""
_UNSEEN = 1e-3
"""Share of δ for the losses that are too large, and too rare, for the grid."""
_OUTSIDE = 30.0
"""Of a tilted sum, all but e^-30 lies in the window that it is computed in."""


def epsilon_of(kinds: Sequence[Kind], delta: float) -> float:
    """Return the smallest ε that is known to hold for all `kinds` together at `delta`.

    Raises
    ------
    TooManyCellsError
        If their losses fill no grid that memory holds.
    """
    steps = sum(kind.steps for kind in kinds)
    # Rounded, so that one grid serves many sums: a ledger grows by one entry at a time.
    unseen = 10.0 ** math.floor(math.log10(_UNSEEN * delta / steps))
    width = _width(kinds)
    for _ in range(_COARSER):
        try:
            return _on_grid(kinds, delta, width, unseen)
        except TooManyCellsError:
            width *= 2
    return _on_grid(kinds, delta, width, unseen)


def _on_grid(kinds: Sequence[Kind], delta: float, width: float, unseen: float) -> float:
    pairs = [cells_of(kind.sigma, kind.rate, width, unseen) for kind in kinds]
    counts = [kind.steps for kind in kinds]
    sums = (_Sum([pair[side] for pair in pairs], counts, delta) for side in range(2))
    return max(each.epsilon() for each in sums)


def _width(kinds: Sequence[Kind]) -> float:
    """Return the width of cells, a power of two, that suits the sum of all losses."""
    steps = sum(kind.steps for kind in kinds)
    variance = sum(kind.steps * mean_square(kind.sigma, kind.rate) for kind in kinds)
    if not 0 < variance < math.inf:
        raise TooManyCellsError
    return float(2.0 ** math.floor(math.log2(_SHARE * math.sqrt(variance / steps))))


class _Sum:
    """The sum of independent losses, tilted.

    Parameters
    ----------
    parts : sequence of Cells
        What is added, all on one grid.
    counts : sequence of int
        How often each.
    delta : float
        Where ε is wanted.
    """

    def __init__(self, parts: Sequence[Cells], counts: Sequence[int], delta: float) -> None:
        self._terms = list(zip(parts, counts, strict=True))
        self._width = parts[0].width
        self._delta = delta - sum(count * part.infinite for part, count in self._terms)
        self._tilt = self._best_tilt()
        self._tilted = [part.tilted(self._tilt) for part, _ in self._terms]
        self._log_mean = self._log_mean_at(self._tilt)
        self._mean, variance = 0.0, 0.0
        for (part, count), (_, weights) in zip(self._terms, self._tilted, strict=True):
            mean = float(weights @ part.losses)
            self._mean += count * mean
            variance += count * float(weights @ (part.losses - mean) ** 2)
        self._deviation = math.sqrt(variance)

    def epsilon(self) -> float:
        """Return the smallest ε that is known to hold.

        Raises
        ------
        TooManyCellsError
            If the sum has too many losses.
        """
        below, above = (math.ceil(self._reach(sign) / self._width) + 1 for sign in (-1, 1))
        size = fft.next_fast_len(below + above + 1, real=True)
        if size > _MOST_SUMS:
            raise TooManyCellsError
        centre = round(self._mean / self._width)
        mass = self._convolved(size, centre - below)
        return self._smallest(mass, self._width * (np.arange(size) - below), centre)

    def _log_mean_at(self, tilt: float) -> float:
        """Return log E e^(tilt · sum)."""
        return sum(count * part.tilted(tilt)[0] for part, count in self._terms)

    def _best_tilt(self) -> float:
        """Return the tilt whose Chernoff bound on ε is the least, roughly."""
        square = sum(count * float(part.mass @ part.losses**2) for part, count in self._terms)

        def bound(log_tilt: float) -> float:
            tilt = math.exp(log_tilt)
            return (self._log_mean_at(tilt) - math.log(self._delta) - math.log1p(tilt)) / tilt

        limits = (math.log(share / math.sqrt(square)) for share in (0.01, 100))
        found = minimize_scalar(
            bound, bounds=tuple(limits), method="bounded", options={"xatol": 0.1}
        )
        return math.exp(float(found.x))

    def _reach(self, sign: int) -> float:
        """Return how far from its mean the tilted sum gets, by Chernoff's bound."""
        reaches = []
        for times in (3, 6, 8, 16):
            step = sign * times / self._deviation
            grown = self._log_mean_at(self._tilt + step) - self._log_mean
            reaches.append((grown + _OUTSIDE) / abs(step) - sign * self._mean)
        return min(reaches)

    def _convolved(self, size: int, lowest: int) -> Array:
        """Return the tilted sum's probabilities from a lowest loss on."""
        spectrum, first = np.zeros(size // 2 + 1, np.complex128), 0
        with np.errstate(divide="ignore", invalid="ignore"):
            for (part, count), (_, weights) in zip(self._terms, self._tilted, strict=True):
                spectrum += count * np.log(fft.rfft(_folded(weights, size)))
                first += count * part.first
        mass = fft.irfft(np.nan_to_num(np.exp(spectrum)), size)
        return np.asarray(np.maximum(np.roll(mass, (first - lowest) % size), 0.0))

    def _smallest(self, mass: Array, away: Array, centre: int) -> float:
        """Return the smallest ε, given the tilted probabilities of losses so far from a centre.

        δ at ε is the sum of (1 - e^(ε - loss)) over all larger losses. What was left out or
        rounded in `mass` has weights that come to e^(-tilt (ε - centre)) / (1 + tilt) at most.
        """
        kept = np.maximum(self._tilt, 1.0) * away > -MOST_LOSS
        mass, away = mass[kept], away[kept]
        middle = self._width * centre
        target = self._delta * math.exp(self._tilt * middle - self._log_mean)
        untilted = np.exp(-self._tilt * away)
        steps = sum(count for _, count in self._terms)
        wrong = (4 * math.exp(-_OUTSIDE) + ROUNDING * steps) * untilted / (1 + self._tilt)
        with np.errstate(over="ignore", invalid="ignore"):
            above = np.cumsum((mass * untilted)[::-1])[::-1]
            discounted = np.cumsum((mass * untilted * np.exp(-away))[::-1])[::-1]
            deltas = above - np.exp(np.minimum(away, MOST_LOSS)) * discounted + wrong
        # Of all losses at which δ is small enough, the least above which it always is.
        # Written so that what overflowed is too large.
        large = ~(deltas <= target)
        enough = len(deltas) - int(np.argmax(large[::-1]))
        if large[-1]:
            return math.inf
        if not large.any():
            return max(0.0, middle + float(away[0]))
        if not math.isfinite(discounted[enough]):
            return max(0.0, middle + float(away[enough]))
        rest = float(above[enough] + wrong[enough - 1] - target) / float(discounted[enough])
        return max(0.0, middle + max(float(away[enough - 1]), math.log(max(rest, 1e-300))))


def _folded(weights: Array, size: int) -> Array:
    """Return probabilities on a circle of so many cells."""
    padded = np.zeros(-(-len(weights) // size) * size)
    padded[: len(weights)] = weights
    return np.asarray(padded.reshape(-1, size).sum(0))
