"""Samples of the discrete Gaussian and of Skellam, from cryptographic random bits, exactly.

Rejection from a discrete Laplace distribution, as Canonne, Kamath, Steinke 2020 ("The Discrete
Gaussian for Differential Privacy", algorithm 3), on whole arrays. Their guarantee is kept without
their integer arithmetic for every sample: each decision compares a uniform number with a
probability in double precision, and where that is too close to call (about once in 2^35
comparisons) it is made in decimal arithmetic, with as many more random digits as it takes. So
nothing is approximated, as long as the double-precision functions err by less than `_MARGIN`; what
they are known to err by is below 2^-42.

Timing is not constant: who could measure a client's noise being drawn would learn something about
its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import partial

import numpy as np
from numpy.typing import NDArray

from task.privacy.discrete.keystream import KeyStream

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_MARGIN = 2.0**-36
"""Numbers nearer than this are not told apart in double precision."""
_BLOCK = 1 << 16
"""Proposals that are made at once, so that intermediate results stay in the cache."""


@dataclass(frozen=True)
class _Target:
    """A symmetric distribution on the integers, below a discrete Laplace one.

    Attributes
    ----------
    scale : int
        t of the proposals, which have magnitude k with probability ∝ e^(-k/t).
    exponents : callable
        From magnitudes k to x(k) ≥ 0: a proposal is taken with probability e^-x(k).
    probability : callable
        e^-x(k) in decimal arithmetic, to within a factor 1 ± 10^(4-p) at precision p.
    """

    scale: int
    exponents: Callable[[Floats], Floats]
    probability: Callable[[int], Decimal]


def discrete_gaussian(size: int, variance: float, stream: KeyStream | None = None) -> Integers:
    """Draw from the discrete Gaussian: P(k) ∝ e^(-k²/2σ²) on all integers.

    Parameters
    ----------
    size : int
        How many independent samples.
    variance : float
        σ², above 0; the samples' variance is below it, by next to nothing from σ = 1 on.
    stream : KeyStream, optional
        Random bits; the operating system's unless given.

    Returns
    -------
    int64 array, shape (size,)
    """
    scale = math.isqrt(int(variance)) + 1
    centre = variance / scale
    exact, exact_centre = Fraction(variance), Fraction(variance) / scale

    def exponents(magnitudes: Floats) -> Floats:
        return (magnitudes - centre) ** 2 / (2 * variance)

    def probability(magnitude: int) -> Decimal:
        return _exp(-((magnitude - exact_centre) ** 2) / (2 * exact))

    return _draw(size, _Target(scale, exponents, probability), stream or KeyStream())


def skellam(size: int, variance: float, stream: KeyStream | None = None) -> Integers:
    """Draw differences of two Poisson numbers of mean σ²/2 each: P(k) = e^-σ² I_k(σ²).

    Parameters and result are those of `discrete_gaussian`; σ² is the variance exactly.
    """
    scale = math.isqrt(int(variance)) + 1

    def excess(magnitudes: Floats) -> Floats:
        return log_bessel_ratio(magnitudes, variance) + magnitudes / scale

    peak = _peak(lambda k: float(excess(np.array([float(k)]))[0]), scale)
    # Above every value of the excess, although those are not exact.
    top = peak + _MARGIN

    def probability(magnitude: int) -> Decimal:
        ratio = _bessel_ratio(magnitude, Fraction(variance))
        return ratio * _exp(Fraction(magnitude, scale) - Fraction(top))

    target = _Target(scale, lambda magnitudes: top - excess(magnitudes), probability)
    return _draw(size, target, stream or KeyStream())


def log_bessel_ratio(orders: Floats, argument: float) -> Floats:
    """Return log(I_k(x) / I_0(x)) for orders k ≥ 0 at one x > 0, to within 2^-42.

    By the uniform expansion for large orders and arguments (NIST DLMF 10.41.3), whose next term is
    below 10^-15 where it is used; SciPy's function loses digits there, and ends at 10^9.
    """
    if argument < 1000:
        from scipy.special import ive

        with np.errstate(divide="ignore"):  # a probability below the smallest number is 0
            return np.asarray(np.log(ive(orders, argument) / ive(0, argument)))
    root = np.hypot(orders, argument)
    slope = orders**2 / (root + argument) - orders * np.arcsinh(orders / argument)
    return np.asarray(
        slope
        - 0.5 * np.log(root / argument)
        + np.log1p(_debye((orders / root) ** 2, root))
        - math.log1p(float(_debye(np.zeros(1), np.array([argument]))[0]))
    )


def _debye(p2: Floats, root: Floats) -> Floats:
    """Sum U_1 to U_4 of DLMF 10.41.10, with p² = k²/(k²+x²), over powers of √(k²+x²)."""
    u1 = (3 - 5 * p2) / 24
    u2 = (81 + p2 * (-462 + 385 * p2)) / 1152
    u3 = (30375 + p2 * (-369603 + p2 * (765765 - 425425 * p2))) / 414720
    u4 = 4465125 + p2 * (-94121676 + p2 * (349922430 + p2 * (-446185740 + 185910725 * p2)))
    return np.asarray((u1 + (u2 + (u3 + u4 / 39813120 / root) / root) / root) / root)


def _bessel_ratio(order: int, argument: Fraction) -> Decimal:
    """Return I_k(x) / I_0(x) in the current decimal precision, by Miller's backward recurrence."""
    with localcontext() as context:
        digits = context.prec
        context.prec += 10
        x = _decimal(argument)
        # From here on upwards, what the start neglects is below the precision.
        start = order + math.isqrt(int(5 * digits * argument)) + 2 * digits
        above, here, found = Decimal(0), Decimal(1), Decimal(0)
        for k in range(start, 0, -1):
            if k == order:
                found = here
            above, here = here, above + 2 * k * here / x
        return (found if order else here) / here


def _peak(excess: Callable[[int], float], scale: int) -> float:
    """Return the largest value of a concave function of integers k ≥ 0, found by bisection."""
    low, high = 0, 8 * scale
    while low < high:
        middle = (low + high) // 2
        if excess(middle + 1) > excess(middle):
            low = middle + 1
        else:
            high = middle
    return excess(low)


def _draw(size: int, target: _Target, stream: KeyStream) -> Integers:
    result = np.empty(size, np.int64)
    done = 0
    while done < size:
        count = min(_BLOCK, 2 * (size - done) + 64)
        first, second = stream.words(2 * count).reshape(2, count)
        magnitudes = _geometric(first, target.scale, stream)
        negative = (second & np.uint64(1)).astype(bool)
        taken = _taken(second, magnitudes, target, stream)
        taken &= (magnitudes > 0) | ~negative  # or zero would come up twice as often
        values = np.where(negative, -magnitudes, magnitudes)[taken][: size - done]
        result[done : done + len(values)] = values
        done += len(values)
    return result


def _geometric(words: NDArray[np.uint64], scale: int, stream: KeyStream) -> Integers:
    """Turn uniform words into k ≥ 0 with P(K ≥ k) = e^(-k/t): the whole part of -t log U."""
    uniform = (words + 0.5) * 2.0**-64
    real = -scale * np.log(uniform)
    nearest = np.rint(real)
    result: Integers = np.floor(real).astype(np.int64)
    # A word stands for all numbers that begin with it, which matters for small ones.
    blur = _MARGIN + scale * (2.0**-64 / uniform + 2.0**-45)
    for i in np.flatnonzero((np.abs(real - nearest) <= blur) & (nearest > 0)):
        exact = _Uniform(int(words[i]), 64, stream)
        result[i] = _exact_geometric(exact, scale, int(nearest[i]))
    return result


def _exact_geometric(uniform: _Uniform, scale: int, guess: int) -> int:
    """Return the largest k ≥ 0 with U < e^(-k/t), sought from a guess."""

    def reached(k: int) -> bool:
        return k == 0 or uniform.below(lambda: _exp(Fraction(-k, scale)))

    while not reached(guess):
        guess -= 1
    while reached(guess + 1):
        guess += 1
    return guess


def _taken(
    words: NDArray[np.uint64], magnitudes: Integers, target: _Target, stream: KeyStream
) -> NDArray[np.bool_]:
    """Return true with probability e^-x(k) each, from all bits of the words but the lowest."""
    most = int(magnitudes.max())
    if most < len(magnitudes):
        chances = np.exp(-target.exponents(np.arange(most + 1.0)))[magnitudes]
    else:
        chances = np.exp(-target.exponents(magnitudes.astype(np.float64)))
    gap = chances - (words >> np.uint64(1)) * 2.0**-63
    result = np.asarray(gap > 0)
    for i in np.flatnonzero(np.abs(gap) <= _MARGIN):
        exact = _Uniform(int(words[i]) >> 1, 63, stream)
        result[i] = exact.below(partial(target.probability, int(magnitudes[i])))
    return result


class _Uniform:
    """A uniform number in [0, 1), of which no more binary digits exist than were asked for."""

    def __init__(self, word: int, bits: int, stream: KeyStream) -> None:
        self._word, self._bits, self._stream = word, bits, stream

    def below(self, probability: Callable[[], Decimal]) -> bool:
        """Decide whether it is below what `probability` gives at the current precision."""
        while True:
            with localcontext() as context:
                context.prec = 20 + self._bits // 3
                p, unit = probability(), Decimal(2) ** -self._bits
                slack = Decimal(10) ** (5 - context.prec)
                if (self._word + 1) * unit + slack <= p:
                    return True
                if self._word * unit - slack >= p:
                    return False
            self._word = self._word << 64 | int(self._stream.words(1)[0])
            self._bits += 64


def _exp(exponent: Fraction) -> Decimal:
    return _decimal(exponent).exp()


def _decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)
