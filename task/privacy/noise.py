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
from collections.abc import Iterator
from decimal import Decimal, localcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from task.privacy.discrete.keystream import KeyStream

Floats = NDArray[np.float64]

_INDEX_BITS = 14
_FRACTION_BITS = 32 - _INDEX_BITS
_HALF = 1 << (_INDEX_BITS - 1)
_LOW = np.uint32((1 << _INDEX_BITS) - 1)
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
        samples = np.zeros(size)
        if step := grid(deviation):
            for place, block in self._blocks(size, deviation / step):
                np.multiply(block, step, out=samples[place : place + len(block)])
        return samples

    def noised(
        self, values: NDArray[Any], deviation: float, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Return values with noise, so that rounding tells nothing about them.

        Parameters
        ----------
        values : array of floats, shape (d,)
            What is released.
        deviation : float
            Noise multiplier s times sensitivity. The noise is larger by a factor 1 + 2^-12, for
            rounding may add √d steps of the grid to the sensitivity; that is enough as long as
            ``s √d`` is below 2^12.
        out : array, shape (d,), optional
            Where to put them, rounded to its kind of numbers; `values` itself may be given.

        Returns
        -------
        array, shape (d,)
            `out`, or a new one of float64.

        Raises
        ------
        ValueError
            As `grid`.
        """
        deviation *= 1 + _MARGIN
        result = np.empty(values.shape) if out is None else out
        step = grid(deviation)
        if not step:
            result[:] = values
            return result
        for place, block in self._blocks(values.size, deviation / step):
            part = slice(place, place + len(block))
            steps = np.divide(values[part], step, dtype=np.float64)
            np.rint(steps, out=steps)
            steps += block
            np.multiply(steps, step, out=result[part], casting="same_kind")
        return result

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

    def _blocks(self, size: int, deviation: float) -> Iterator[tuple[int, NDArray[np.int32]]]:
        """Yield discrete Gaussians on the whole numbers, a block at a time, with their place."""
        place = math.ceil(deviation / _BASE)
        centre = np.int32(_HALF * (place + _FACTOR + 1))
        for start in range(0, size, _BLOCK):
            count = min(_BLOCK, size - start)
            first, second, third = self._tabled(3 * count).reshape(3, count)
            first *= np.int32(place)  # below 2^30
            second *= np.int32(_FACTOR)
            first += second
            first += third
            first -= centre
            yield start, first

    def _tabled(self, count: int) -> NDArray[np.int32]:
        """Draw from the table: the low bits of a word choose an entry, the others its side.

        Without branches, which no processor could foresee.
        """
        table = _table()
        words = self._stream.words(-(-count // 2)).view(np.uint32)[:count]
        entry = table.entries.take(words & _LOW)
        own = words < entry
        words ^= entry
        # Where the high bits are the same, more of them decide.
        for tie in np.flatnonzero(words <= _LOW):
            index = int((words[tie] ^ entry[tie]) & _LOW)
            own[tie] = int(self._stream.words(1)[0]) < table.rest[index]
        words *= own
        words ^= entry
        words &= _LOW
        return words.view(np.int32)


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
        In the high bits the first digits of the probability with which an entry stands for itself,
        in the low ones its alias.
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
        number >> 64 << _INDEX_BITS | other for number, other in zip(own, alias, strict=True)
    ]
    return _Table(np.array(entries, np.uint32), [number & (1 << 64) - 1 for number in own])


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
