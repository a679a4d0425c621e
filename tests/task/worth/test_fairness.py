from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from task.worth.fairness import fairness, gini, worst_tenth


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=30))
def test_gini_is_half_the_relative_mean_difference(values: list[float]) -> None:
    array = np.array(values)
    pairs = np.abs(array[:, None] - array[None, :]).mean()
    assert gini(array) == pytest.approx(pairs / (2 * array.mean()), abs=1e-9)


def test_known_figures() -> None:
    told = fairness(np.array([0.5, 0.9, 0.7, 0.8]))
    assert (told.worst, told.worst_decile) == (0.5, 0.5)
    assert told.variance == pytest.approx(np.var([0.5, 0.9, 0.7, 0.8]))
    assert worst_tenth(np.array([3.0, 1.0, 2.0]), lower_is_better=True) == 3.0
    # Of 11 clients two are the worst tenth: one would be less than a tenth.
    assert fairness(np.arange(11.0)).worst_decile == 0.5
    assert fairness(np.full(40, 0.7)).gini == pytest.approx(0)
    assert fairness(np.linspace(0, 1, 41)[1:]).worst_decile == pytest.approx(0.0625)
    assert fairness(np.array([-1.0, -2.0])).gini is None
