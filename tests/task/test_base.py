import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from task.base import Examples, merge_moments, moments, standardize


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_merged_moments_are_those_of_the_union(sizes, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(5, 3, (size, 2)) for size in sizes]
    for part in parts:
        part[rng.random(part.shape) < 0.2] = np.nan
    union = np.concatenate(parts)
    merged = merge_moments([moments(torch.tensor(part)) for part in parts])
    for column in range(2):
        known = union[~np.isnan(union[:, column]), column]
        mean = known.mean() if len(known) else 0.0
        std = known.std(ddof=1) if len(known) > 1 else 0.0
        assert merged["mean"][column] == pytest.approx(mean, abs=1e-9)
        assert merged["std"][column] == pytest.approx(std, abs=1e-6)


FAR = [(1.7e9, 10.0), (1.7e12, 1e4), (1e6, 0.01), (-3e15, 100.0), (0.0, 1e-9), (25.7, 0.0)]


@pytest.mark.parametrize(("mean", "deviation"), FAR)
@pytest.mark.parametrize("sizes", [(120,), (7, 1, 300), (40, 40, 40, 1)])
def test_moments_of_columns_far_from_zero_are_those_of_exact_arithmetic(mean, deviation, sizes):
    rng = np.random.default_rng(1)
    parts = [mean + deviation * rng.normal(i, 1, (size, 1)) for i, size in enumerate(sizes)]
    exact = [Fraction(float(value)) for part in parts for value in part.ravel()]
    centre = sum(exact) / len(exact)
    variance = sum((value - centre) ** 2 for value in exact) / (len(exact) - 1)
    merged = merge_moments([moments(torch.tensor(part)) for part in parts])
    assert merged["mean"][0] == pytest.approx(float(centre), rel=1e-15)
    assert merged["std"][0] == pytest.approx(math.sqrt(variance), rel=1e-9, abs=0)


def test_moments_run_over_all_axes_but_the_last():
    x = torch.arange(24.0).reshape(2, 4, 3)
    assert merge_moments([moments(x)])["mean"] == x.mean((0, 1)).tolist()


def test_constant_features_stay_centred():
    rows = Examples(torch.tensor([[4.0, 1.0], [4.0, 3.0]]), torch.zeros(2))
    scaled = standardize(rows, merge_moments([moments(rows.x)]))
    assert scaled.x[:, 0].tolist() == [0.0, 0.0]
    assert scaled.x[:, 1].tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5])


def test_rows_are_taken_in_the_order_asked_for():
    rows = Examples(torch.arange(6).reshape(3, 2), torch.tensor([0, 1, 2]))
    taken = rows.take(np.array([2, 0]))
    assert taken.y.tolist() == [2, 0] and taken.x.tolist() == [[4, 5], [0, 1]]
    assert len(taken) == 2
