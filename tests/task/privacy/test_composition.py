"""What a source's releases cost the row that most was released of."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from task.privacy import composition
from task.privacy.accounting import Spend, epsilon
from task.privacy.composition import composed_epsilon
from task.privacy.ledger import Entry, standing

DELTA = 1e-5
SPENDS = st.builds(
    Spend, st.sampled_from([0.8, 1.0, 2.0]), st.sampled_from([0.1, 0.3, 1.0]), st.integers(1, 5)
)
ENTRIES = st.lists(
    st.builds(
        Entry, st.just("record"), SPENDS, st.just({}), st.sampled_from("pq"), st.sampled_from("abc")
    ),
    max_size=10,
)


def truth(entries):
    """The cost of every possible row, one after the other."""
    partitions = sorted({e.partition for e in entries})
    clients = [sorted({e.client for e in entries if e.partition == p}) for p in partitions]
    return max(
        epsilon(
            [e.spend for e in entries if e.rows_of in set(zip(partitions, row, strict=True))], DELTA
        )
        for row in itertools.product(*clients)
    )


@settings(deadline=None, max_examples=25)
@given(ENTRIES)
def test_it_is_that_of_the_row_that_most_was_released_of(entries):
    assert composed_epsilon(entries, DELTA) == pytest.approx(truth(entries))


@settings(deadline=None, max_examples=25)
@given(ENTRIES)
def test_the_bound_for_many_partitions_is_one(entries):
    found = composition._bound(composition._dearest(entries), DELTA)
    assert found >= truth(entries) - 1e-9


def test_clients_of_one_partition_cost_what_the_dearest_does():
    spend = Spend(1.0, 0.1, 10)
    one = [Entry("record", spend, {}, "p", "a")]
    wards = [Entry("record", spend, {}, "p", client) for client in "abcde"]
    twice = [*one, Entry("record", spend, {}, "q", "a")]
    assert composed_epsilon(wards, DELTA) == composed_epsilon(one, DELTA)
    assert composed_epsilon(twice, DELTA) == epsilon([spend, spend], DELTA)
    assert composed_epsilon([], DELTA) == 0
    assert composed_epsilon([Entry("record", Spend(0.0, 1.0, 1), {})], DELTA) == math.inf


def test_many_wards_over_many_states_of_a_table_stay_near_the_truth():
    entries = [
        Entry("record", Spend(1.0, 0.1 + 0.02 * ward, 10), {}, f"state {state}", str(ward))
        for state in range(6)
        for ward in range(5)
    ]
    worst = epsilon([Spend(1.0, 0.18, 60)], DELTA)
    assert worst <= composed_epsilon(entries, DELTA) <= 1.2 * worst


def test_a_session_is_settled_for_the_client_that_settles_it():
    planned = [Entry("client", Spend(1.0, 1, 1), {"session": "s"}, "p", c) for c in "ab"]
    settled = Entry("client", Spend(2.0, 1, 1), {"settles": "s"}, "p", "a")
    assert standing([*planned, settled]) == [planned[1], settled]
