"""Privacy loss distributions of subsampled Gaussian mechanisms, and what they come to together.

Every number here errs to the safe side: losses are moved up, never down, and what is cut off or
rounded away is added to δ. Losses lie on a grid. What lies between two of its points is split
between them such that both neighbours' probabilities stay what they are ("connect the dots",
Doroshenko et al. 2022, algorithm 1), from differences of normal tails that keep their relative
precision: mechanisms that release next to nothing, a million times, come out right. Sums are
convolved by FFT after tilting (Esscher): δ has that relative precision then, too, however small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.optimize import minimize_scalar
from scipy.special import ndtr, ndtri

Array = NDArray[np.float64]
_SHARE = 0.08
"""Width of a cell over the losses' deviation: rounding adds its square / 6 to the variance."""
_MOST_CELLS, _MOST_SUMS = 1 << 20, 1 << 22
"""Losses of one mechanism, and of a sum."""
_COARSER = 5
"""How often cells are made twice as wide where there are too many: ε is then less tight."""
_UNSEEN = 1e-3
"""Share of δ for the losses that are too large, and too rare, for the grid."""
_OUTSIDE = 30.0
"""Of a tilted sum, all but e^-30 lies in the window that it is computed in."""
_ROUNDING = 8 * float(np.finfo(np.float64).eps)
"""Relative error of a normal tail at the mean, and of one factor in a convolution, at most."""
_MOST_LOSS = 600.0
"""Of one mechanism; larger ones overflow, and protect nobody."""


class TooManyCellsError(Exception):
    """Losses so far apart that no grid holds them."""


class Kind(NamedTuple):
    """Gaussian mechanisms that are alike.

    Attributes
    ----------
    sigma : float
        Noise multiplier.
    rate : float
        Of Poisson sampling; 1: none.
    steps : int
        How many.
    """

    sigma: float
    rate: float
    steps: int


@dataclass(frozen=True)
class Cells:
    """The losses of one mechanism, in one direction.

    Attributes
    ----------
    first : int
        The least loss, in cells.
    mass : Array of shape (n,)
        Probabilities of the losses from there on.
    width : float
        Of a cell.
    infinite : float
        Probability of all larger losses.
    """

    first: int
    mass: Array
    width: float
    infinite: float

    @cached_property
    def losses(self) -> Array:
        """The losses, shape (n,)."""
        return self.width * (self.first + np.arange(len(self.mass), dtype=np.float64))

    @cached_property
    def log_mass(self) -> Array:
        """Logarithms of their probabilities."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.mass))

    def tilted(self, tilt: float) -> tuple[float, Array]:
        """Return log E e^(tilt · loss), and the probabilities that are proportional to it."""
        exponents = self.log_mass + tilt * self.losses
        most = float(exponents.max())
        weights = np.exp(exponents - most)
        total = float(weights.sum())
        return most + math.log(total), weights / total


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
    pairs = [_cells(kind.sigma, kind.rate, width, unseen) for kind in kinds]
    counts = [kind.steps for kind in kinds]
    sums = (_Sum([pair[side] for pair in pairs], counts, delta) for side in range(2))
    return max(each.epsilon() for each in sums)


def _width(kinds: Sequence[Kind]) -> float:
    """Return the width of cells, a power of two, that suits the sum of all losses."""
    steps = sum(kind.steps for kind in kinds)
    variance = sum(kind.steps * _square(kind.sigma, kind.rate) for kind in kinds)
    if not 0 < variance < math.inf:
        raise TooManyCellsError
    return float(2.0 ** math.floor(math.log2(_SHARE * math.sqrt(variance / steps))))


@lru_cache(maxsize=4096)
def _square(sigma: float, rate: float) -> float:
    """Return the mean square of one mechanism's loss, by the trapezoidal rule."""
    x = np.linspace(-9 * sigma, 1 + 9 * sigma, 4001)
    loss = _loss(x, sigma, rate)
    density = (1 - rate) * np.exp(-0.5 * (x / sigma) ** 2)
    density += rate * np.exp(-0.5 * ((x - 1) / sigma) ** 2)
    return float(np.sum(density * loss**2) / np.sum(density))


def _loss(x: Array, sigma: float, rate: float) -> Array:
    """Return log((1 - rate) + rate · e^((2x - 1) / 2σ²))."""
    exponent = (x - 0.5) / sigma**2
    if rate == 1:
        return exponent
    small = np.log1p(rate * np.expm1(np.minimum(exponent, 700.0)))
    return np.asarray(np.where(exponent < 700, small, exponent + math.log(rate)))


def _place(loss: Array, sigma: float, rate: float) -> Array:
    """Return where the loss is that large: the inverse of `_loss`, -∞ below the least."""
    if rate == 1:
        return sigma**2 * loss + 0.5
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inner = np.log1p(np.expm1(np.minimum(loss, 700.0)) / rate)
        found = np.where(loss < 700, inner, loss - math.log(rate))
    return np.asarray(sigma**2 * np.nan_to_num(found, nan=-np.inf, neginf=-np.inf) + 0.5)


@lru_cache(maxsize=32)
def _cells(sigma: float, rate: float, width: float, unseen: float) -> tuple[Cells, Cells]:
    """Return the losses of removing somebody, and of adding somebody.

    Removing compares P = (1 - rate) N(0, σ²) + rate N(1, σ²) with Q = N(0, σ²); adding compares
    Q with P. More than `unseen` of the probability does not leave the grid at either end.
    """
    far = -float(ndtri(unseen / 4))
    shifted = -float(ndtri(min(0.5, unseen / 4 / rate)))
    top = max(far * sigma, 1 + shifted * sigma)
    ends = _loss(np.array([-far * sigma, top]), sigma, rate)
    first, last = math.floor(ends[0] / width) - 1, math.ceil(ends[1] / width) + 1
    if last - first > _MOST_CELLS or ends[1] > _MOST_LOSS:
        raise TooManyCellsError
    edges = width * np.arange(first, last + 1, dtype=np.float64)
    at = _place(edges, sigma, rate)
    null, null_error = _between(at / sigma)
    moved, moved_error = _between((at - 1) / sigma)
    mixed = (1 - rate) * null + rate * moved
    mixed_error = (1 - rate) * null_error + rate * moved_error
    low, high = np.exp(edges[:-1]), np.exp(-edges[1:])
    above = (1 - rate) * ndtr(-at[-1] / sigma) + rate * ndtr(-(at[-1] - 1) / sigma)
    below = ndtr(at[0] / sigma)
    # The part at the upper end: ∫ 1 - e^(lower end - loss), over 1 - e^-width.
    removed = mixed - low * null + mixed_error + low * null_error
    added = null - high * mixed + null_error + high * mixed_error
    whole = ((mixed, removed, below), (null[::-1], added[::-1], above))
    starts, infinities = (first, -last), (above, below)
    return tuple(  # type: ignore[return-value]
        Cells(start, _split(*each, width), width, float(infinity))
        for start, each, infinity in zip(starts, whole, infinities, strict=True)
    )


def _split(whole: Array, upper: Array, beyond: float, width: float) -> Array:
    """Return the probabilities of the cells' ends: `upper` of `whole`, scaled, goes up."""
    up = np.clip(upper / -math.expm1(-width), 0.0, whole)
    mass = np.zeros(len(whole) + 1)
    mass[:-1] += whole - up
    mass[1:] += up
    mass[0] += beyond
    return mass


def _between(x: Array) -> tuple[Array, Array]:
    """Return the standard normal probability between neighbours, and how wrong it may be."""
    lower, upper = ndtr(x), ndtr(-x)
    right = x[:-1] > 0
    part = np.where(right, upper[:-1] - upper[1:], lower[1:] - lower[:-1])
    # A tail's argument is rounded, too, which counts the more the further out it lies.
    error = _ROUNDING * (1 + np.square(np.where(np.isfinite(x), x, 0.0)))
    return part, np.where(right, (error * upper)[:-1], (error * lower)[1:])


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
        kept = np.maximum(self._tilt, 1.0) * away > -_MOST_LOSS
        mass, away = mass[kept], away[kept]
        middle = self._width * centre
        target = self._delta * math.exp(self._tilt * middle - self._log_mean)
        untilted = np.exp(-self._tilt * away)
        steps = sum(count for _, count in self._terms)
        wrong = (4 * math.exp(-_OUTSIDE) + _ROUNDING * steps) * untilted / (1 + self._tilt)
        above = np.cumsum((mass * untilted)[::-1])[::-1]
        discounted = np.cumsum((mass * untilted * np.exp(-away))[::-1])[::-1]
        deltas = above - np.exp(np.minimum(away, _MOST_LOSS)) * discounted + wrong
        # Of all losses at which δ is small enough, the least above which it always is.
        enough = len(deltas) - int(np.argmax((deltas > target)[::-1]))
        if deltas[-1] > target:
            return math.inf
        if enough == len(deltas):
            return max(0.0, middle + float(away[0]))
        rest = float(above[enough] + wrong[enough - 1] - target) / float(discounted[enough])
        return max(0.0, middle + max(float(away[enough - 1]), math.log(max(rest, 1e-300))))


def _folded(weights: Array, size: int) -> Array:
    """Return probabilities on a circle of so many cells."""
    padded = np.zeros(-(-len(weights) // size) * size)
    padded[: len(weights)] = weights
    return np.asarray(padded.reshape(-1, size).sum(0))
