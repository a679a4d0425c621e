"""ε of noisy sums against exact divergences, dp-accounting, the papers, and central noise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ive, logsumexp

from task.privacy.accounting import Spend
from task.privacy.accounting import epsilon as epsilon_gaussian
from task.privacy.discrete.accounting import (
    Noise,
    Release,
    as_gaussian,
    epsilon,
    epsilon_rdp,
    rdp,
)
from task.privacy.discrete.mechanism import design

DELTA = 1e-5
GAUSSIAN, SKELLAM = Noise.discrete_gaussian, Noise.skellam


def gaussian_pmf(variance: float, reach: int) -> np.ndarray:
    weights = np.exp(-(np.arange(-reach, reach + 1.0) ** 2) / (2 * variance))
    return weights / weights.sum()


def skellam_pmf(variance: float, reach: int) -> np.ndarray:
    return ive(np.abs(np.arange(-reach, reach + 1.0)), variance)


def summed(pmf: np.ndarray, count: int) -> np.ndarray:
    result = pmf
    for _ in range(count - 1):
        result = np.convolve(result, pmf, mode="same")
    return result


def shifted(pmf: np.ndarray, by: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a distribution and itself moved, where neither is lost to underflow."""
    p, q = pmf[by:], pmf[: len(pmf) - by]
    kept = (p > 1e-280) & (q > 1e-280)
    return p[kept], q[kept]


def exact_delta(pmf: np.ndarray, by: int, epsilon_: float) -> float:
    p, q = shifted(pmf, by)
    return float(np.maximum(p - math.exp(epsilon_) * q, 0).sum())


def exact_epsilon(pmf: np.ndarray, by: int, delta: float) -> float:
    low, high = 0.0, 200.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if exact_delta(pmf, by, middle) > delta else (low, middle)
    return high


def exact_rdp(pmf: np.ndarray, by: int, alpha: int) -> float:
    p, q = shifted(pmf, by)
    return float(logsumexp(alpha * np.log(p) - (alpha - 1) * np.log(q)) / (alpha - 1))


def release(
    noise: Noise, variance: float, count: int, sensitivity: float, size: int = 1
) -> Release:
    return Release(noise, variance, count, count, sensitivity, size)


@pytest.mark.parametrize("variance", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_tau_bounds_what_a_sum_lacks_to_be_a_discrete_gaussian(variance, count):
    """Kairouz et al., numerically: what proposition 14 rests on."""
    sums, whole = summed(gaussian_pmf(variance, 25), count), gaussian_pmf(count * variance, 25)
    middle = slice(25 - 8, 25 + 9)
    ratio = np.abs(np.log(sums[middle] / whole[middle])).max()
    tau = release(GAUSSIAN, variance, count, 1.0).tau
    assert 1e-3 * tau < ratio <= tau / 2


@pytest.mark.parametrize("smoothing", [0.5, 0.7])
def test_a_rounded_gaussian_is_nearly_a_discrete_one(smoothing):
    """κ of the module's text, by quadrature."""
    variance, integers = 1.3, np.arange(-40, 41)
    x = np.linspace(-14, 14, 14001)
    kernel = np.exp(-((integers[:, None] - x) ** 2) / (2 * smoothing))
    density = np.exp(-(x**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    found = (kernel / kernel.sum(0) * density).sum(1) * (x[1] - x[0])
    whole = gaussian_pmf(variance + smoothing, 40)
    middle = slice(40 - 7, 40 + 8)
    ratio = np.abs(np.log(found[middle] / whole[middle])).max()
    kappa = 6 * math.exp(-2 * math.pi**2 * smoothing)
    assert 1e-5 * kappa < ratio <= kappa


@pytest.mark.parametrize(("variance", "count"), [(0.4, 1), (0.4, 4), (1.0, 3), (9.0, 5), (60.0, 3)])
@pytest.mark.parametrize("sensitivity", [1, 3])
def test_epsilon_is_never_below_the_true_value(variance, count, sensitivity):
    for noise, pmf in ((GAUSSIAN, gaussian_pmf), (SKELLAM, skellam_pmf)):
        sums = summed(pmf(variance, 250), count)
        found = epsilon([release(noise, variance, count, float(sensitivity))], DELTA)
        assert exact_delta(sums, sensitivity, found) <= DELTA


def test_epsilon_is_nearly_the_true_value_for_noise_of_some_size():
    sums = summed(gaussian_pmf(200.0, 700), 4)
    found = epsilon([release(GAUSSIAN, 200.0, 4, 30.0)], DELTA)
    assert found == pytest.approx(exact_epsilon(sums, 30, DELTA), rel=0.005)


@pytest.mark.parametrize("alpha", [2, 3, 8, 20])
@pytest.mark.parametrize(("variance", "count"), [(0.5, 2), (2.0, 3), (30.0, 4)])
def test_renyi_divergences_are_bounded_and_not_far_off(alpha, variance, count):
    """Of one dimension, and of several with a shift of (1, 2, 1): divergences add up."""
    for noise, pmf in ((GAUSSIAN, gaussian_pmf), (SKELLAM, skellam_pmf)):
        sums = summed(pmf(variance, 150), count)
        one, two = (exact_rdp(sums, by, alpha) for by in (1, 2))
        for exact, norm, size in ((one, 1.0, 1), (2 * one + two, math.sqrt(6), 3)):
            (bound,) = rdp(release(noise, variance, count, norm, size), [alpha])
            assert exact <= bound * (1 + 1e-9)
            if variance > 10 and alpha < 10:
                assert bound < exact * (1.001 if noise is GAUSSIAN else 1.15)


def test_dp_accounting_knows_one_discrete_gaussian():
    from dp_accounting.pld import privacy_loss_distribution as pld

    theirs = pld.from_discrete_gaussian_mechanism(12.0, 5).get_epsilon_for_delta(DELTA)
    ours = epsilon([release(GAUSSIAN, 144.0, 1, 5.0)], DELTA)
    assert theirs <= ours * 1.001
    assert ours == pytest.approx(theirs, rel=0.02)


def test_renyi_bounds_are_the_papers():
    """Proposition 14 with each of its three terms smallest, and the bound for Skellam, by hand."""
    gaussian = Release(GAUSSIAN, 0.5, 10, 10, 3.0, 64)
    tau = sum(10 * math.exp(-(math.pi**2) * k / (k + 1)) for k in range(1, 10))
    square, l1 = 9 / 5, 9.0
    for alpha in (2, 50):
        by_hand = min(
            alpha / 2 * square + 64 * tau,
            alpha / 2 * (square + 2 * l1 * tau / math.sqrt(5) + 64 * tau**2),
            alpha / 2 * (3 / math.sqrt(5) + 8 * tau) ** 2,
        )
        assert rdp(gaussian, [alpha])[0] == pytest.approx(by_hand)
    poisson = Release(SKELLAM, 50.0, 10, 10, 3.0, 64)
    by_hand = 4 * 9 / 1000 + min((7 * 9 + 6 * 9) / (4 * 500**2), 3 * 9 / 1000)
    assert rdp(poisson, [4])[0] == pytest.approx(by_hand)


@pytest.mark.parametrize("clients", [10, 100, 1000])
@pytest.mark.parametrize("rounds", [1, 100])
def test_at_16_bits_it_costs_what_central_noise_costs(clients, rounds):
    """Equal noise, a million parameters: 3 % apart, by the same accountant each."""
    central = [Spend(1.0, 1.0, rounds)]
    tight = design(1_000_000, 1.0, 16, clients, 1.0).release(clients, rounds)
    assert 1 <= epsilon([tight], DELTA) / epsilon_gaussian(central, DELTA) < 1.03
    for noise in Noise:
        found = design(1_000_000, 1.0, 16, clients, 1.0, noise=noise).release(clients, rounds)
        # So many integers that its Rényi divergences are the Gaussian's.
        same = Release(GAUSSIAN, 1e18, 1, 1, 1e9, 1, rounds)
        assert 1 <= epsilon_rdp([found], DELTA) / epsilon_rdp([same], DELTA) < 1.03


@given(
    noise=st.sampled_from(Noise),
    clients=st.integers(1, 200),
    lost=st.integers(0, 200),
    multiplier=st.floats(0.3, 5.0),
    rounds=st.integers(1, 50),
)
@settings(max_examples=60, deadline=None)
def test_drop_outs_never_lower_epsilon(noise, clients, lost, multiplier, rounds):
    made = design(5000, 2.0, 20, clients, multiplier, noise=noise)
    everyone = epsilon([made.release(clients, rounds)], DELTA)
    fewer = epsilon([made.release(max(clients - lost, 0), rounds)], DELTA)
    assert fewer >= everyone
    assert fewer > everyone or not lost


def test_no_noise_is_no_privacy_and_nothing_costs_nothing():
    for noise in Noise:
        assert epsilon([Release(noise, 9.0, 0, 5, 1.0, 4)], DELTA) == math.inf
        assert epsilon([Release(noise, 9.0, 5, 5, 1.0, 4, 0)], DELTA) == 0.0
    assert epsilon([], DELTA) == 0.0


def test_tiny_noise_falls_back_to_renyi():
    """Where the sum is far from Gaussian only the other bound exists."""
    tiny = Release(GAUSSIAN, 0.25, 2, 2, 1.0, 1000)
    assert as_gaussian(tiny)[0].sigma == 0.0
    assert epsilon([tiny], DELTA) == epsilon_rdp([tiny], DELTA) < math.inf


def test_releases_compose():
    a, b = Release(GAUSSIAN, 400.0, 10, 10, 60.0, 64), Release(GAUSSIAN, 400.0, 7, 10, 60.0, 64, 3)
    assert epsilon([a, b], DELTA) == pytest.approx(epsilon([b, a], DELTA), rel=1e-12)
    assert epsilon([a, b], DELTA) > epsilon([b], DELTA)
    sigma = math.sqrt(1 / (60**2 / 4000 + 3 * 60**2 / 2800))
    assert epsilon([a, b], DELTA) == pytest.approx(
        epsilon_gaussian([Spend(sigma, 1.0, 1)], DELTA), rel=0.005
    )
    mixed = Release(SKELLAM, 400.0, 10, 10, 60.0, 64)
    assert epsilon([a, mixed], DELTA) == epsilon_rdp([a, mixed], DELTA) > epsilon([a], DELTA)


def test_impossible_releases_are_bugs():
    with pytest.raises(ValueError, match="6 contributors"):
        Release(GAUSSIAN, 1.0, 6, 5, 1.0, 4)
    with pytest.raises(ValueError, match="nothing is known"):
        Release(GAUSSIAN, 0.2, 5, 5, 1.0, 4)
    with pytest.raises(ValueError, match="skellam"):
        as_gaussian(Release(SKELLAM, 1.0, 5, 5, 1.0, 4))
