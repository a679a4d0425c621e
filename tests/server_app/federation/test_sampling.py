from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from server_app.federation.sampling import sample

NAMES = st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=30, unique=True)


@given(NAMES, st.floats(0.01, 1.0), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_size_and_order(names, fraction, number):
    drawn = sample(names, fraction, 1, "train", number)
    assert len(drawn) == max(1, int(fraction * len(names) + 1e-9))
    assert drawn == sorted(drawn) and set(drawn) <= set(names)
    assert drawn == sample(names[::-1], fraction, 1, "train", number)


def test_draws_differ_and_are_fair():
    names = [f"c{i}" for i in range(10)]
    counts = Counter(c for r in range(500) for c in sample(names, 0.3, 7, "train", r))
    # 150 expected of each, standard deviation 10.
    assert min(counts.values()) > 105 and max(counts.values()) < 195
    draws = {tuple(sample(names, 0.3, 7, "train", 1, attempt)) for attempt in range(5)}
    assert len(draws) > 1
    assert sample(names, 0.3, 7, "train", 1) != sample(names, 0.3, 8, "train", 1)


def test_a_share_that_floats_round_down_is_whole():
    assert len(sample([f"c{i}" for i in range(100)], 0.29, 0)) == 29
