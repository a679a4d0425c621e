"""ε against published figures, another accountant, and what must hold for any ε."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from task.privacy.accounting import Spend, epsilon, epsilon_rdp, solve_sigma

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
