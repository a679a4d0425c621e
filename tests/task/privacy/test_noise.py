"""Privacy noise: the distribution it says, on the grid it says, from bits nobody else has."""

import ast
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from task.privacy import noise
from task.privacy.noise import SecureNoise, grid, to_grid

ROOT = Path(__file__).parents[3]
KEY = bytes(range(32))
DEVIATIONS = st.floats(1e-30, 1e30)


def discrete_gaussian(values, deviation):
    """Return the probabilities of the discrete Gaussian on the integers, from its definition."""
    return np.exp(-(values**2) / (2 * deviation**2)) / (deviation * math.sqrt(2 * math.pi))


def tabled():
    """Return the values of the table and the probabilities with which it gives them."""
    table = noise._table()
    size, digits = len(table.entries), noise._FRACTION_BITS + 64
    mass = [0] * size
    for i, (entry, rest) in enumerate(zip(table.entries.tolist(), table.rest, strict=True)):
        own = (entry >> noise._INDEX_BITS) << 64 | rest
        mass[i] += own
        mass[entry & int(noise._LOW)] += (1 << digits) - own
    assert sum(mass) == size << digits
    return np.arange(size) - size // 2, np.array([m / (size << digits) for m in mass])


def test_the_table_is_the_discrete_gaussian():
    values, found = tabled()
    expected = discrete_gaussian(values, noise._BASE)
    assert np.abs(found - expected).max() < 1e-18
    # Its 96 binary digits are good for 9.5 deviations, and what is beyond 6 has its chance.
    near = np.abs(values) < 9.5 * noise._BASE
    np.testing.assert_allclose(found[near], expected[near], rtol=1e-5)
    inner = np.abs(values) < 6 * noise._BASE
    np.testing.assert_allclose(found[inner], expected[inner], rtol=1e-12)
    assert found[~inner].sum() == pytest.approx(2 * stats.norm.sf(6), rel=0.02)


@pytest.mark.parametrize("place", [noise._LEAST + 1, 2 * noise._LEAST])
def test_a_sum_of_tabled_samples_is_a_discrete_gaussian(place):
    """Micciancio and Walter's theorem, by the sum over all ways to make a value."""
    values, mass = tabled()
    inner = noise._BASE * math.hypot(noise._FACTOR, 1)
    whole = noise._BASE * math.hypot(place, noise._FACTOR, 1)
    for wanted in (0, 1, 7_777, -123_456, 10 * noise._FACTOR * noise._BASE):
        by_sum = (mass * discrete_gaussian_of(values, mass, wanted)).sum()
        assert by_sum == pytest.approx(discrete_gaussian(wanted, inner), rel=1e-9)
    for wanted in (0, 1, 7_777_777, -int(6.5 * whole)):
        by_sum = (mass * discrete_gaussian(wanted - place * values, inner)).sum()
        assert by_sum == pytest.approx(discrete_gaussian(wanted, whole), rel=1e-6)


def discrete_gaussian_of(values, mass, wanted):
    """Return the tabled probability of what is missing to `wanted` beside each second sample."""
    third = wanted - noise._FACTOR * values + len(values) // 2
    return np.where((third >= 0) & (third < len(values)), mass[third.clip(0, len(values) - 1)], 0)


@pytest.mark.parametrize("deviation", [1e-9, 0.7, 1.0, 3e5])
def test_samples_are_gaussian(deviation):
    size = 400_000
    sample = SecureNoise(KEY).gaussian(size, deviation) / deviation
    assert stats.kstest(sample, "norm").pvalue > 1e-3
    assert abs(sample.mean()) < 4 / math.sqrt(size)
    assert abs(sample.var() - 1) < 4 * math.sqrt(2 / size)
    assert abs((sample**4).mean() - 3) < 4 * math.sqrt(96 / size)
    beyond = (np.abs(sample) > 4).sum()
    assert abs(beyond - 2 * stats.norm.sf(4) * size) < 4 * math.sqrt(2 * stats.norm.sf(4) * size)
    assert abs(np.corrcoef(sample[:-1], sample[1:])[0, 1]) < 4 / math.sqrt(size)


def test_a_sample_may_be_far_beyond_six_deviations():
    class Words:
        def words(self, count):
            # The entry at 8 deviations, and as itself: all further digits are 0.
            word = 8 * noise._BASE + noise._HALF
            return np.full(count, word << 32 | word if count > 1 else 0, np.uint64)

    stream = SecureNoise(KEY)
    stream._stream = Words()
    assert (stream.gaussian(5, 1.0) > 7.9).all()


@given(DEVIATIONS, st.integers(1, 40))
def test_noise_lies_on_its_grid(deviation, size):
    step = grid(deviation)
    assert math.frexp(step)[0] == 0.5
    assert 2.0**-26 <= step / deviation <= 2.0**-24
    multiples = SecureNoise(KEY).gaussian(size, deviation) / step
    assert (multiples == np.rint(multiples)).all()


@given(DEVIATIONS)
def test_noise_is_never_less_than_asked(deviation):
    place = math.ceil(deviation / (grid(deviation) * noise._BASE))
    assert noise._LEAST <= place <= 2 * noise._LEAST
    whole = grid(deviation) * noise._BASE * math.hypot(place, noise._FACTOR, 1)
    assert deviation <= whole <= deviation * (1 + 2.0**-14)


@given(DEVIATIONS, st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20))
def test_which_numbers_come_out_does_not_depend_on_the_values(deviation, values):
    """Mironov's attack: with the same noise, the difference of two releases is on the grid."""
    values = np.array(values) * deviation
    one, other = (SecureNoise(KEY).noised(v, deviation) for v in (values, np.zeros_like(values)))
    step = grid(deviation * (1 + noise._MARGIN))
    assert ((one / step) == np.rint(one / step)).all()
    assert (one - other == to_grid(values, deviation * (1 + noise._MARGIN))).all()
    assert np.abs(one - other - values).max() <= step / 2


def test_naive_noise_is_told_by_its_last_bits():
    """The attack bites on plain sums: those of 1/3 are no multiples of what those of 0 are."""
    draws = SecureNoise(KEY).gaussian(1000, 1.0)
    assert ((1 / 3 + draws) / grid(1.0) != np.rint((1 / 3 + draws) / grid(1.0))).all()


@given(st.floats(0, 1))
def test_a_rate_is_kept(rate):
    size = 4000
    hits = SecureNoise(KEY).bernoulli(size, rate).sum()
    assert abs(hits - rate * size) <= 5 * math.sqrt(rate * (1 - rate) * size) + 1e-9


def test_extreme_rates():
    assert not SecureNoise().bernoulli(1000, 0.0).any()
    assert SecureNoise().bernoulli(1000, 1.0).all()
    assert not SecureNoise().bernoulli(1000, 2.0**-63).any()
    for rate in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="no probability"):
            SecureNoise().bernoulli(1, rate)


@pytest.mark.parametrize("deviation", [-1.0, math.nan, math.inf, 1e-300, 1e300])
def test_what_is_no_deviation_is_refused(deviation):
    with pytest.raises(ValueError, match="no deviation"):
        SecureNoise().gaussian(3, deviation)
    with pytest.raises(ValueError, match="no deviation"):
        SecureNoise().noised(np.zeros(3), deviation)


def test_no_deviation_is_no_noise():
    assert not SecureNoise().gaussian(3, 0.0).any()
    assert (SecureNoise().noised(np.full(3, 1 / 3), 0.0) == 1 / 3).all()


def test_the_key_is_256_bits_of_the_system(monkeypatch):
    asked = []
    real = os.urandom
    monkeypatch.setattr(os, "urandom", lambda count: asked.append(count) or real(count))
    first, second = (SecureNoise().gaussian(8, 1.0) for _ in range(2))
    assert asked == [32, 32]
    assert (first != second).any()


@pytest.mark.parametrize("bit", [0, 31, 32, 63, 64, 255])
def test_every_bit_of_the_key_counts(bit):
    """The fault of torch's CPU generator, of whose seed 32 bits counted."""
    other = bytearray(KEY)
    other[bit // 8] ^= 1 << bit % 8
    one, two = (SecureNoise(bytes(key)).gaussian(64, 1.0) for key in (KEY, other))
    assert (SecureNoise(KEY).gaussian(64, 1.0) == one).all()
    assert (one != two).sum() >= 60


FORBIDDEN = {
    "Generator", "default_rng", "RandomState", "manual_seed", "rand", "randn", "randint",
    "randperm", "rand_like", "randn_like", "normal_", "normal", "bernoulli_", "multinomial",
    "uniform_", "exponential_", "random_", "standard_normal",
}  # fmt: skip
"""Names through which torch, numpy or the standard library make random numbers."""


def generators(text):
    """Return the lines of a module that make random numbers in another way than this one's."""
    for node in ast.walk(ast.parse(text)):
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
        if name in FORBIDDEN:
            yield f"{node.lineno}: {name}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            if {"random", "numpy.random", "torch.random"} & set(names):
                yield f"{node.lineno}: import"


@pytest.mark.parametrize("folder", ["task/privacy", "server_app/privacy"])
def test_no_other_generator_makes_noise(folder):
    found = {
        str(path.relative_to(ROOT)): lines
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (lines := list(generators(path.read_text("utf-8"))))
    }
    assert not found


@pytest.mark.parametrize(
    "line",
    ["torch.randn(3)", "x.normal_(0, 1)", "from numpy.random import default_rng", "import random",
     "torch.Generator()", "np.random.default_rng(1)"],
)  # fmt: skip
def test_another_generator_would_be_found(line):
    assert list(generators(line))
