"""Sums that do not depend on order or grouping."""

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from task.aggregation import HEADROOM, WeightedSum, flatten, quantum

SIZE = 70_000  # More than two pieces.


def clients(seed, count, scale):
    rng = np.random.default_rng(seed)
    spread = 10.0 ** rng.uniform(-12, 0, SIZE)
    vectors = torch.from_numpy(rng.standard_normal((count, SIZE)) * spread * scale).float()
    return list(zip(vectors, rng.integers(1, 5000, count).tolist(), strict=True))


def total(parts, unit):
    added = WeightedSum(SIZE, unit)
    for vector, weight in parts:
        added.add(vector, weight)
    return added


@given(st.integers(0, 99), st.integers(2, 9), st.sampled_from([1e-6, 1.0, 60.0]), st.data())
@settings(max_examples=25, deadline=None)
def test_order_and_grouping_do_not_matter(seed, count, scale, data):
    parts = clients(seed, count, scale)
    weight = sum(w for _, w in parts)
    unit = quantum(weight, 1.0)
    whole = total(parts, unit).total
    shuffled = data.draw(st.permutations(parts))
    cut = data.draw(st.integers(0, count))
    left, right = total(shuffled[:cut], unit), total(shuffled[cut:], unit)
    right.merge(left.total.numpy())
    assert torch.equal(whole, right.total)
    exact = sum(v.double() * w for v, w in parts)
    assert (whole - exact).abs().max() <= count * unit / 2 + 1e-15 * exact.abs().max()


@given(st.floats(1, 1e9), st.floats(1e-9, 1e6))
@example(1.0, 1.0 + 2**-52)
@example(4.0, 1.0)
def test_the_unit_is_a_power_of_two_that_leaves_room(weight, largest):
    unit = quantum(weight, largest)
    assert np.frexp(unit)[0] == 0.5
    room = unit * 2.0**52
    assert weight * max(largest, 1.0) * HEADROOM <= room < 4 * weight * max(largest, 1) * HEADROOM


def test_beyond_the_room_sums_are_still_right():
    parts = [(torch.full((SIZE,), 1e30), 7), (torch.ones(SIZE), 3)]
    got = total(parts, quantum(10, 1.0)).total
    assert torch.allclose(got, torch.full_like(got, 7 * float(torch.tensor(1e30)) + 3), rtol=1e-12)


def test_flatten_keeps_the_order():
    state = {"b": torch.arange(4.0).view(2, 2), "a": torch.tensor([9.0])}
    assert flatten(state).tolist() == [0, 1, 2, 3, 9]
