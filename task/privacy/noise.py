"""Gaussian noise and samples that nobody can predict, nor take off by how numbers are rounded.

All random bits are those of AES-256 in counter mode under a key of 256 bits from the operating
system. The noise is a discrete Gaussian on the multiples of a power of two, some 2^-25 of its
deviation. Added to values that were rounded to the same multiples, the exact sum depends on the
values only through the mechanism that is accounted for; rounding it, in whatever precision, is
post-processing. So which numbers can come out does not depend on the values, which is what the
attack of Mironov 2012 ("On Significance of the Least Significant Bits for Differential Privacy")
needs. `SecureNoise.noised` does both; whoever adds `SecureNoise.gaussian` to values of their own
rounds them with `to_grid` first (whole numbers need no rounding: a grid finer than one holds them).

A discrete Gaussian costs what the continuous one of the same variance does (Canonne, Kamath,
Steinke 2020, Theorem 7). Rounding moves two neighbouring vectors of d values apart by no more than
√d steps of the grid; `SecureNoise.noised` pays for it with `_MARGIN` more noise.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from task.privacy.discrete.keystream import KeyStream

Floats = NDArray[np.float64]

_INDEX_BITS = 14
_FRACTION_BITS = 32 - _INDEX_BITS
_HALF = 1 << (_INDEX_BITS - 1)
_BASE = 650
"""Standard deviation of the tabled discrete Gaussian: the table ends at 12.6 of them."""
_FACTOR = 256
"""Ratio of two tabled samples' places in a sum; at most `_BASE` / 2.54, see `SecureNoise`."""
_LEAST = _FACTOR**2 // 2
"""The first sample's place lies above this, and not above twice as much."""
_MARGIN = 2.0**-12
_BLOCK = 1 << 14
"""Samples that are drawn at once, so that intermediate results stay in the cache."""
_SMALLEST = 2.0**-960
"""Deviation below which multiples of its grid are not all numbers."""
_PRECISION = 192
"""Binary digits of the fixed-point numbers from which the table is made."""


class SecureNoise:
    """A stream of noise and samples, keyed by the operating system.

    A sample is ``m X + 256 Y + Z`` for three independent discrete Gaussians of deviation 650 from a
    table (Walker's alias method). That is a discrete Gaussian itself, but for a relative error of
    10^-54 in each probability (Micciancio and Walter 2017, "Gaussian Sampling over the Integers":
    650 √(2π) is 6.3 · 256, and 6.3 is above the smoothing parameter of the integers for that
    error). Table and comparisons are right to 2^-96, and no sample is further than 12.6 deviations
    from zero: together less than 2^-80 of statistical distance per sample.

    Not for use in two processes: a forked copy would repeat what the other draws.

    Parameters
    ----------
    key : bytes, 32 of them, optional
        For tests, and for nothing else: whoever knows the key can take the noise off.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._stream = KeyStream(key)

    def gaussian(self, size: int, deviation: float) -> Floats:
        """Return independent samples of mean zero.

        Parameters
        ----------
        size : int
            How many.
        deviation : float
            Their standard deviation is this, or up to 2^-15 of it more. 0 gives zeros.

        Returns
        -------
        float64 array, shape (size,)
            Multiples of `grid`(deviation).

        Raises
        ------
        ValueError
            As `grid`.
        """
        step = grid(deviation)
        samples = np.empty(size)
        if not step:
            samples.fill(0.0)
            return samples
        place = math.ceil(deviation / (step * _BASE))
        for start in range(0, size, _BLOCK):
            count = min(_BLOCK, size - start)
            first, second, third = self._tabled(3 * count).reshape(3, count)
            whole = first * np.int32(place) + (second * np.int32(_FACTOR) + third)  # below 2^30
            np.multiply(whole, step, out=samples[start : start + count])
        return samples

    def noised(self, values: Floats, deviation: float) -> Floats:
        """Return values with noise, so that rounding tells nothing about them.

        Parameters
        ----------
        values : float64 array, shape (d,)
            What is released.
        deviation : float
            Noise multiplier s times sensitivity. The noise is larger by a factor 1 + 2^-12, for
            rounding may add √d steps of the grid to the sensitivity; that is enough as long as
            ``s √d`` is below 2^12.

        Raises
        ------
        ValueError
            As `grid`.
        """
        deviation *= 1 + _MARGIN
        noise = self.gaussian(values.size, deviation)
        noise += to_grid(values, deviation)
        return noise

    def bernoulli(self, count: int, rate: float) -> NDArray[np.bool_]:
        """Return `count` independent draws that are true with probability `rate`, to 2^-64.

        Raises
        ------
        ValueError
            If the rate is no probability.
        """
        if not 0 <= rate <= 1:
            raise ValueError(f"{rate} is no probability")
        if rate == 1:
            return np.ones(count, bool)
        return self._stream.words(count) < np.uint64(int(math.ldexp(rate, 64)))

    def _tabled(self, count: int) -> NDArray[np.int32]:
        """Draw from the table: a word's first bits choose an entry, the others its side."""
        table = _table()
        words = self._stream.words(-(-count // 2)).view(np.uint32)[:count]
        index = words >> np.uint32(_FRACTION_BITS)
        entry = table.entries.take(index)
        # Both keep the fraction in their low bits, which the shift puts first.
        fraction = words << np.uint32(_INDEX_BITS)
        bound = entry << np.uint32(_INDEX_BITS)
        own = fraction < bound
        for tie in np.flatnonzero(fraction == bound):
            own[tie] = int(self._stream.words(1)[0]) < table.rest[int(index[tie])]
        alias = entry >> np.uint32(_FRACTION_BITS)
        # A choice without branches, which no processor could foresee: alias, or alias + difference.
        alias += (index - alias) * own
        return alias.view(np.int32) - np.int32(_HALF)


def grid(deviation: float) -> float:
    """Return the power of two, 2^-26 to 2^-24 of a deviation, whose multiples its noise is.

    0 has no noise, and no grid: 0.

    Raises
    ------
    ValueError
        If the deviation is negative, not finite, or so large or small that its noise is no number.
    """
    if not deviation:
        return 0.0
    if not _SMALLEST <= deviation <= 1 / _SMALLEST:
        raise ValueError(f"{deviation} is no deviation of noise")
    mantissa, exponent = math.frexp(deviation / (_BASE * _LEAST))
    return math.ldexp(1.0, exponent - 1 - (mantissa == 0.5))


def to_grid(values: Floats, deviation: float) -> Floats:
    """Round values to the multiples that noise of a deviation has."""
    step = grid(deviation)
    return np.rint(values / step) * step if step else values


class _Table(NamedTuple):
    """Walker's table of a discrete Gaussian on [-2^13, 2^13).

    Attributes
    ----------
    entries : array of uint32, shape (2^14,)
        In the high bits an alias, in the low ones the first digits of the probability with which an
        entry stands for itself.
    rest : list of int
        The next 64 digits.
    """

    entries: NDArray[np.uint32]
    rest: list[int]


@cache
def _table() -> _Table:
    masses = _masses()
    size, total = len(masses), sum(masses)
    # Each entry gets as much as the mean; what one lacks comes from one that has too much.
    scaled = [mass * size for mass in masses]
    alias = list(range(size))
    low = [i for i, mass in enumerate(scaled) if mass < total]
    high = [i for i, mass in enumerate(scaled) if mass >= total]
    while low and high:
        lacking, rich = low.pop(), high[-1]
        alias[lacking] = rich
        scaled[rich] -= total - scaled[lacking]
        if scaled[rich] < total:
            low.append(high.pop())
    digits = _FRACTION_BITS + 64
    own = [min((mass << digits) // total, (1 << digits) - 1) for mass in scaled]
    entries = [
        other << _FRACTION_BITS | first >> 64 for other, first in zip(alias, own, strict=True)
    ]
    return _Table(np.array(entries, np.uint32), [digit & (1 << 64) - 1 for digit in own])


def _masses() -> list[int]:
    """Return what the values from -2^13 to 2^13 - 1 weigh, in fixed-point numbers."""
    with localcontext() as context:
        context.prec = _PRECISION
        one = Decimal(1 << _PRECISION)
        ratio = int((Decimal(-1) / (2 * _BASE**2)).exp() * one)
        change = int((Decimal(-1) / _BASE**2).exp() * one)
    # e^(-(k+1)²/2σ²) is e^(-k²/2σ²) times e^(-(2k+1)/2σ²).
    mass, right = 1 << _PRECISION, []
    for _ in range(_HALF + 1):
        right.append(mass)
        mass, ratio = mass * ratio >> _PRECISION, ratio * change >> _PRECISION
    return right[:0:-1] + right[:-1]
