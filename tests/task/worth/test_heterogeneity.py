from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from task.worth.heterogeneity import feature_shift, label_divergence, outlying_low


@given(
    st.lists(
        st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any), min_size=2, max_size=6
    )
)
def test_label_divergence_is_scipys(rows: list[list[int]]) -> None:
    counts = np.array(rows, dtype=float)
    everybody = counts.sum(0) / counts.sum()
    expected = [jensenshannon(row / row.sum(), everybody, base=2) ** 2 for row in counts]
    assert label_divergence(counts) == pytest.approx(np.nan_to_num(expected), abs=1e-7)


def test_divergence_of_the_same_and_of_nothing_in_common() -> None:
    assert label_divergence(np.array([[5.0, 5.0], [50.0, 50.0]])) == pytest.approx([0, 0])
    apart = label_divergence(np.array([[1.0, 0.0], [0.0, 1e9]]))
    assert apart[0] == pytest.approx(1, abs=1e-6)


def test_feature_shift_in_standard_deviations() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(centre, 1, (5000, 3)) for centre in (-0.1, 0.1)]
    args = ([p.mean(0) for p in parts], [p.var(0) for p in parts], np.array([5000.0, 5000.0]))
    assert feature_shift(*args) == pytest.approx([0.1, 0.1], abs=0.02)
    constant = [np.ones(2), np.ones(2)]
    assert feature_shift(constant, [np.zeros(2)] * 2, np.ones(2)).tolist() == [0, 0]


def test_outliers_are_far_below_the_others() -> None:
    values = np.array([0.8, 0.82, 0.79, 0.81, 0.1])
    assert outlying_low(values, 0.2).tolist() == [False] * 4 + [True]
    assert not outlying_low(-values, 0.2).any()
    assert not outlying_low(np.array([0.8, 0.8, 0.8, 0.8, 0.79]), 0.05).any()
    assert not outlying_low(np.array([0.9, 0.9, 0.1]), 0.1).any()
    assert outlying_low(np.append(values, np.nan), 0.2).tolist() == [False] * 4 + [True, False]
