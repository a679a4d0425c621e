"""Privacy loss distributions of subsampled Gaussian mechanisms, on a grid.

Every number here errs to the safe side: losses are moved up, never down, and what is cut off counts
as an infinite loss. What lies between two points of the grid is split between them such that both
neighbours' probabilities stay what they are ("connect the dots", Doroshenko et al. 2022, algorithm
1), from differences of normal tails that keep their relative precision: mechanisms that release
next to nothing, a million times, come out right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Array = NDArray[np.float64]
_MOST_CELLS = 1 << 20
"""Losses of one mechanism."""
ROUNDING = 8 * float(np.finfo(np.float64).eps)
"""Relative error of a normal tail at the mean, and of one factor in a convolution, at most."""
MOST_LOSS = 600.0
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


@lru_cache(maxsize=4096)
def mean_square(sigma: float, rate: float) -> float:
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
def cells_of(sigma: float, rate: float, width: float, unseen: float) -> tuple[Cells, Cells]:
    """Return the losses of removing somebody, and of adding somebody.

    Removing compares P = (1 - rate) N(0, σ²) + rate N(1, σ²) with Q = N(0, σ²); adding compares
    Q with P. More than `unseen` of the probability does not leave the grid at either end.
    """
    far = -float(ndtri(unseen / 4))
    shifted = -float(ndtri(min(0.5, unseen / 4 / rate)))
    top = max(far * sigma, 1 + shifted * sigma)
    ends = _loss(np.array([-far * sigma, top]), sigma, rate)
    first, last = math.floor(ends[0] / width) - 1, math.ceil(ends[1] / width) + 1
    if last - first > _MOST_CELLS or ends[1] > MOST_LOSS:
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
    error = ROUNDING * (1 + np.square(np.where(np.isfinite(x), x, 0.0)))
    return part, np.where(right, (error * upper)[:-1], (error * lower)[1:])
