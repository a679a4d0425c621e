"""Samples follow the probabilities that define them, also where exact arithmetic decides."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ive
from scipy.stats import chisquare

from task.privacy.discrete import samplers
from task.privacy.discrete.keystream import KeyStream
from task.privacy.discrete.samplers import discrete_gaussian, log_bessel_ratio, skellam

SIZE = 200_000
DRAWS = {"discrete_gaussian": discrete_gaussian, "skellam": skellam}


def pmf(name: str, values: np.ndarray, variance: float) -> np.ndarray:
    if name == "skellam":
        return ive(np.abs(values), variance)
    reach = np.arange(-40 * math.ceil(math.sqrt(variance)), 1 + 40 * math.ceil(math.sqrt(variance)))
    return np.exp(-(values**2) / (2 * variance)) / np.exp(-(reach**2) / (2 * variance)).sum()


def fits(name: str, drawn: np.ndarray, variance: float) -> float:
    """Return the p-value of a chi-square test on cells that expect at least 10 samples."""
    reach = max(3, math.ceil(6 * math.sqrt(variance)))
    values = np.arange(-reach, reach + 1)
    expected = pmf(name, values, variance) * len(drawn)
    counts = np.bincount(drawn[np.abs(drawn) <= reach] + reach, minlength=2 * reach + 1)
    often = expected >= 10
    rest_seen = len(drawn) - counts[often].sum()
    rest = len(drawn) - expected[often].sum()
    observed, wanted = counts[often], expected[often]
    if rest >= 10:
        observed, wanted = np.append(observed, rest_seen), np.append(wanted, rest)
    assert counts.sum() > 0.999 * len(drawn)
    return float(chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue)


@pytest.mark.parametrize("variance", [0.3, 1.0, 7.3, 400.0, 5000.0])
@pytest.mark.parametrize("name", DRAWS)
def test_frequencies_are_the_probabilities(name, variance):
    drawn = DRAWS[name](SIZE, variance, KeyStream(bytes(32)))
    assert drawn.dtype == np.int64 and drawn.shape == (SIZE,)
    assert fits(name, drawn, variance) > 1e-3


@pytest.mark.parametrize("variance", [2.0, 188_356.0, 1e12])
@pytest.mark.parametrize("name", DRAWS)
def test_moments(name, variance):
    """Variance σ² (the discrete Gaussian's differs by less than e^-2π²σ²), fourth moment."""
    drawn = DRAWS[name](SIZE, variance, KeyStream(b"\1" * 32)) / math.sqrt(variance)
    kurtosis = 3 + (1 / variance if name == "skellam" else 0)
    assert abs(drawn.mean()) < 4 / math.sqrt(SIZE)
    assert abs(drawn.var() - 1) < 4 * math.sqrt((kurtosis - 1) / SIZE)
    assert abs((drawn**4).mean() - kurtosis) < 5 * math.sqrt(96 / SIZE)
    assert abs((drawn**3).mean()) < 5 * math.sqrt(15 / SIZE)


@pytest.mark.parametrize("name", DRAWS)
def test_a_million_samples_of_one_block_or_many_are_one_stream(name):
    """Nothing is lost or repeated between blocks: no two runs of the stream look alike."""
    drawn = DRAWS[name](300_000, 1e6, KeyStream(bytes(32)))
    later = np.corrcoef(drawn[:100_000], drawn[100_000:200_000])[0, 1]
    assert abs(later) < 4 / math.sqrt(100_000)


def test_noise_differs_from_draw_to_draw():
    assert not np.array_equal(discrete_gaussian(50, 100.0), discrete_gaussian(50, 100.0))
    assert not np.array_equal(skellam(50, 100.0), skellam(50, 100.0))


@pytest.mark.parametrize("name", DRAWS)
def test_exact_arithmetic_decides_as_double_precision_does(name, monkeypatch):
    """With a margin of 1/8 a good part of all decisions are made in decimal arithmetic."""
    monkeypatch.setattr(samplers, "_MARGIN", 0.125)
    calls = 0
    below = samplers._Uniform.below

    def counted(self, probability):
        nonlocal calls
        calls += 1
        return below(self, probability)

    monkeypatch.setattr(samplers._Uniform, "below", counted)
    drawn = DRAWS[name](3000, 6.0, KeyStream(b"\2" * 32))
    assert calls > 1000
    assert fits(name, drawn, 6.0) > 1e-3


@given(scale=st.integers(1, 10_000), word=st.integers(0, 2**64 - 1))
@settings(max_examples=300, deadline=None)
def test_geometric_numbers_are_those_of_high_precision(scale, word):
    """What is decided in double precision is right, for any word."""
    (found,) = samplers._geometric(np.array([word], np.uint64), scale, KeyStream(bytes(32)))
    with mpmath.workdps(60):
        low = math.floor(-scale * mpmath.log(mpmath.mpf(word + 1) / 2**64))
        high = math.floor(-scale * mpmath.log(mpmath.mpf(max(word, 1)) / 2**64))
    assert low <= found and (found <= high or word == 0)


def test_a_word_on_the_boundary_is_decided_by_further_digits():
    """P(K ≥ 3) = e^(-3/4): the word that holds this probability belongs to both sides."""
    with localcontext() as context:
        context.prec = 60
        boundary = (Decimal(-3) / 4).exp() * 2**64
    word = np.full(400, int(boundary), np.uint64)
    found = samplers._geometric(word, 4, KeyStream(bytes(32)))
    share = float(boundary - int(boundary))
    assert set(found) == {2, 3}
    assert abs((found == 3).mean() - share) < 4 * math.sqrt(share * (1 - share) / 400)


def test_zero_words_are_large_but_finite():
    (found,) = samplers._geometric(np.array([0], np.uint64), 5, KeyStream(bytes(32)))
    assert found >= math.floor(5 * 64 * math.log(2))


@pytest.mark.parametrize("variance", [0.2, 3.0, 50.0, 999.0, 1001.0, 5000.0])
def test_bessel_ratios_are_right_far_into_the_tail(variance):
    orders = np.unique(np.round(np.array([0, 1, 2, 3, 6, 10, 15]) * math.sqrt(variance)))
    found = log_bessel_ratio(orders, variance)
    with mpmath.workdps(50):
        for order, value in zip(orders, found, strict=True):
            ratio = mpmath.besseli(int(order), variance) / mpmath.besseli(0, variance)
            assert abs(mpmath.log(ratio) - value) < 2**-42
            with localcontext() as context:
                context.prec = 40
                exact = samplers._bessel_ratio(int(order), Fraction(variance))
            assert abs(mpmath.mpf(str(exact)) / ratio - 1) < mpmath.mpf(10) ** -36


def test_proposals_lie_above_skellam():
    """The largest excess, found by bisection, is the largest of all."""
    for variance in (0.4, 12.0, 3000.0):
        scale = math.isqrt(int(variance)) + 1
        k = np.arange(0.0, 20 * scale)
        excess = log_bessel_ratio(k, variance) + k / scale
        found = samplers._peak(lambda i, e=excess: float(e[i]), scale)
        assert found == pytest.approx(excess.max(), abs=1e-12)
