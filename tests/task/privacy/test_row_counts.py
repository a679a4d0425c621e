"""Counts of rows that may leave: noised once, whole, and paid for."""

import numpy as np
import pytest

from task.privacy.accounting import Spend, epsilon
from task.privacy.ledger import Entry
from task.privacy.noise import SecureNoise
from task.privacy.row_counts import COUNT_DEVIATION, SPEND, UNIT, RowCounts, released_counts


def test_the_noise_is_that_which_is_paid_for():
    noise = SecureNoise(bytes(32))
    found = [RowCounts(500, 200).noised(noise) for _ in range(20_000)]
    for values, exact in (([c.train for c in found], 500), ([c.test for c in found], 200)):
        assert np.mean(values) == pytest.approx(exact, abs=0.3)
        assert np.std(values) == pytest.approx(COUNT_DEVIATION, rel=0.03)
    pairs = np.corrcoef([c.train for c in found], [c.test for c in found])
    assert abs(pairs[0, 1]) < 0.03


def test_neighbours_differ_by_the_row_and_by_nothing_else():
    told = [RowCounts(n, 50).noised(SecureNoise(b"k" * 32)) for n in (199, 200)]
    assert told[1] == RowCounts(told[0].train + 1, told[0].test)


def test_what_it_costs():
    assert epsilon([SPEND], 1e-5) == pytest.approx(0.34, abs=0.005)
    training = Spend(1.2, 0.05, 60)
    alone, both = (epsilon(spends, 1e-5) for spends in ([training], [training, SPEND]))
    assert alone == pytest.approx(2, abs=0.05) and both - alone == pytest.approx(0.035, abs=0.005)


def test_none_is_below_zero():
    assert RowCounts(0, 0).noised(SecureNoise(bytes([3]) * 32)).train >= 0


def test_the_first_release_counts():
    counts = [RowCounts(5, 2), RowCounts(7, 2)]
    entries = [Entry(UNIT, SPEND, {"time": 1, **each.facts}) for each in counts]
    assert released_counts([]) is None
    assert released_counts([Entry(UNIT, SPEND, {"round": 1}), *entries]) == counts[0]
