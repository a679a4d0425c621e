"""ε against published figures, another accountant, and what must hold for any ε."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from task.privacy.accounting import Spend, epsilon, epsilon_rdp, solve_sigma
from task.privacy.loss_sums import epsilon_of
from task.privacy.losses import Kind

DELTA = 1e-5


def test_dp_sgd_of_a_thousand_steps():
    assert epsilon([Spend(1.0, 0.01, 1000)], DELTA) == pytest.approx(1.828, abs=0.002)
    assert epsilon_rdp([Spend(1.0, 0.01, 1000)], DELTA) == pytest.approx(2.101, abs=0.01)


def test_clients_sampled_by_poisson():
    assert epsilon([Spend(1.0, 0.1, 100)], 1e-3) == pytest.approx(4.78, abs=0.02)


def test_twenty_rounds_are_not_one():
    """20 rounds of one epoch each compose to more than a round costs."""
    one = epsilon([Spend(1.0, 0.05, 20)], DELTA)
    assert epsilon([Spend(1.0, 0.05, 20)] * 20, DELTA) > 2.5 * one


def test_two_runs_are_one_long_run():
    parts = [Spend(1.1, 0.02, 120), Spend(1.1, 0.02, 180)]
    assert epsilon(parts, DELTA) == epsilon([Spend(1.1, 0.02, 300)], DELTA)
    mixed = [Spend(1.1, 0.02, 120), Spend(2.0, 0.05, 30), Spend(1.1, 0.02, 180)]
    assert epsilon(mixed, DELTA) == epsilon(reversed(mixed), DELTA)


def test_the_unsampled_gaussian_is_exact():
    """Balle and Wang 2018, theorem 8: the smallest ε that the mechanism has."""
    found = epsilon([Spend(2.0, 1.0, 4)], DELTA)

    def phi(x):
        return (1 + math.erf(x / math.sqrt(2))) / 2

    sigma = 1.0
    exact = phi(0.5 / sigma - found * sigma) - math.exp(found) * phi(-0.5 / sigma - found * sigma)
    assert exact == pytest.approx(DELTA, rel=1e-3)


def test_opacus_agrees_where_it_assumes_the_same():
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(1.3, 0.02, 500)]
    theirs = accountant.get_epsilon(DELTA)
    spend = [Spend(1.3, 0.02, 500)]
    assert epsilon_rdp(spend, DELTA) == pytest.approx(theirs, rel=0.02)
    assert epsilon(spend, DELTA) < theirs


def test_no_noise_is_no_privacy_and_nothing_costs_nothing():
    assert epsilon([Spend(0.0, 0.1, 1)], DELTA) == math.inf
    assert epsilon([], DELTA) == 0.0
    assert epsilon([Spend(1.0, 0.1, 0)], DELTA) == 0.0


SPENDS = st.builds(
    Spend,
    st.sampled_from([1.0, 2.0]),
    st.sampled_from([0.01, 0.2, 1.0]),
    st.sampled_from([1, 20]),
)


@settings(max_examples=10, deadline=None)
@given(st.lists(SPENDS, min_size=1, max_size=2), SPENDS)
def test_epsilon_never_falls_with_more(spends, more):
    before, after = epsilon(spends, DELTA), epsilon([*spends, more], DELTA)
    assert after >= before - 1e-3
    # Rényi DP is an upper bound, up to the cells of the reference.
    assert epsilon_rdp(spends, DELTA) >= before - 1e-2


@pytest.mark.parametrize(("target", "rate", "steps"), [(1.0, 0.05, 200), (8.0, 0.1, 100)])
def test_the_noise_for_a_target_meets_it_and_hardly_more(target, rate, steps):
    sigma = solve_sigma(target, DELTA, rate, steps)
    assert epsilon([Spend(sigma, rate, steps)], DELTA) <= target
    assert epsilon([Spend(sigma * 0.99, rate, steps)], DELTA) > target


def test_a_target_that_no_noise_meets():
    with pytest.raises(ValueError, match="no noise lets 100 steps cost"):
        solve_sigma(1e-9, 1e-9, 1.0, 100)


GRID = [
    (target, delta, rate, steps)
    for target in (0.01, 0.1, 1.0, 8.0)
    for delta in (1e-5, 1e-9)
    for rate in (0.01, 0.1, 1.0)
    for steps in (1, 100, 5000)
] + [(0.01, 1e-6, 0.001, 10**6), (1.0, 1e-5, 0.5, 10**6), (0.3, 1e-12, 0.02, 2000)]


@pytest.mark.parametrize(("target", "delta", "rate", "steps"), GRID)
def test_the_noise_for_any_target_is_enough_and_within_a_hundredth(target, delta, rate, steps):
    sigma = solve_sigma(target, delta, rate, steps)
    assert epsilon([Spend(sigma, rate, steps)], delta) <= target
    assert epsilon([Spend(sigma / 1.0035, rate, steps)], delta) > target


@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-11, 1e-30])
@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (10.0, 400), (3e3, 10**5), (3e5, 10**6)])
def test_losses_on_a_grid_are_those_of_a_gaussian(sigma, steps, delta):
    """Without sampling, ε is known: never below it, and hardly above, however small δ is."""
    from dp_accounting import get_epsilon_gaussian

    exact = get_epsilon_gaussian(sigma / math.sqrt(steps), delta)
    found = epsilon_of([Kind(sigma, 1.0, steps)], delta)
    assert exact * (1 - 1e-9) <= found <= exact * 1.003 + 1e-12


@pytest.mark.parametrize(
    ("sigma", "rate", "steps"),
    [(0.3, 0.01, 10), (0.5, 0.1, 100), (1.0, 0.05, 1), (1.0, 0.01, 5000), (1.0, 0.99, 10),
     (2.0, 0.2, 300), (5.0, 0.05, 1), (20.0, 0.1, 1000)],
)  # fmt: skip
def test_epsilon_is_that_of_dp_accounting_on_a_finer_grid(sigma, rate, steps):
    from dp_accounting.pld import privacy_loss_distribution as pld

    width = 0.02 * rate * min(1.0, math.sqrt(math.expm1(sigma**-2)))
    one = pld.from_gaussian_mechanism(
        sigma, sampling_prob=rate, value_discretization_interval=width
    )
    theirs = one.self_compose(steps).get_epsilon_for_delta(DELTA)
    assert epsilon([Spend(sigma, rate, steps)], DELTA) == pytest.approx(theirs, rel=1.5e-3)


def test_kinds_compose_on_one_grid():
    """A million tiny losses, and a few large ones, are no less than each, and no more than both."""
    tiny, large = Spend(100.0, 0.01, 10**6), Spend(1.0, 0.05, 20)
    alone = [epsilon([one], DELTA / 2) for one in (tiny, large)]
    both = epsilon([tiny, large], DELTA)
    assert max(epsilon([tiny], DELTA), epsilon([large], DELTA)) < both < sum(alone)


def test_what_is_out_of_range_ends_in_a_sentence():
    with pytest.raises(ValueError, match="must be positive"):
        solve_sigma(1.0, DELTA, 0.0, 10)
    assert solve_sigma(1.0, 1e-2, 1e-4, 1) == 0.05


@pytest.mark.parametrize(
    ("sigma", "rate", "steps", "delta"),
    [(0.05, 0.999999999999, 10**9, DELTA), (0.05, 0.001, 1000, 0.9), (0.3, 0.001, 1000, 0.9),
     (1e-9, 0.5, 1, DELTA), (1e9, 1e-9, 10**9, DELTA)],
)  # fmt: skip
def test_whatever_a_client_may_claim_has_a_cost(sigma, rate, steps, delta):
    assert 0 <= epsilon([Spend(sigma, rate, steps)], delta) <= math.inf
