from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from task.worth.bootstrap import interval


def test_nothing_repeated_has_no_interval() -> None:
    found = interval(np.array([[0.3]]))
    assert found.mean == 0.3 and not found.known
    assert not found.above(-1) and not found.below(1)
    assert np.isnan(interval(np.array([[np.nan]])).mean)


def test_of_many_clients_it_is_students() -> None:
    values = np.random.default_rng(1).normal(0.1, 1.0, (1, 400))
    found = interval(values)
    low, high = stats.t.interval(0.95, 399, values.mean(), stats.sem(values, axis=None))
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)


def test_of_five_seeds_it_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    intervals = [interval(rng.normal(size=(5, 1)), seed) for seed in range(300)]
    covered = np.mean([not (i.above(0) or i.below(0)) for i in intervals])
    assert 0.91 < covered < 0.985


def test_seeds_that_differ_widen_it_though_clients_are_many() -> None:
    shifts = np.array([[-1.0], [0.0], [1.0], [0.5], [-0.5]])
    same = interval(np.zeros((5, 100)) + np.random.default_rng(3).normal(0, 0.1, (5, 100)))
    apart = interval(shifts + np.zeros((5, 100)))
    assert same.high is not None and apart.high is not None and apart.low is not None
    assert same.high < 0.05 < 0.5 < apart.high < 2


@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=2, max_size=6),
    st.floats(-2, 2),
)
@settings(max_examples=40, deadline=None)
def test_it_moves_with_the_values(rows: list[list[float]], shift: float) -> None:
    values = np.array(rows)
    before, after = interval(values), interval(values + shift)
    assert before.low is not None and after.low is not None and before.high is not None
    assert before.low - 1e-9 <= before.mean <= before.high + 1e-9
    assert after.low == pytest.approx(before.low + shift, abs=1e-9)


def test_of_one_client_it_is_students_too() -> None:
    values = np.array([0.1, 0.3, 0.2, 0.25, 0.05])
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    found = interval(values[:, None])
    assert (found.low, found.high) == (
        pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01)
    )  # fmt: skip


def test_seeds_that_agree_by_chance_prove_nothing() -> None:
    values = np.full((3, 1), 0.067)
    assert interval(values).above(0.066)
    assert not interval(values, resolution=1 / 20).above(0)


def test_undefined_values_count_for_nothing() -> None:
    values = np.array([[0.1, np.nan, 0.3], [0.2, np.nan, np.nan]])
    assert interval(values).mean == pytest.approx(0.2)


def test_intervals_that_are_read_together_are_wider() -> None:
    values = np.random.default_rng(4).normal(size=(5, 1))
    one, many = interval(values), interval(values, comparisons=10)
    assert one.low is not None and many.low is not None
    # t(4) at 0.25 % over t(4) at 2.5 %.
    assert (many.mean - many.low) / (one.mean - one.low) == pytest.approx(5.5976 / 2.7764, rel=1e-3)
