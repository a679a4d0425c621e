import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import FedproofError
from task import encoding


def frame(**columns):
    return pandas.DataFrame(columns)


def agreed(*parts, categorical=(), sums=True):
    names = list(parts[0].columns)
    return encoding.agree_columns(
        [encoding.describe_columns(part, names, categorical, sums) for part in parts]
    )


def test_encoding_is_what_the_union_would_give():
    left = frame(age=[20, 40, None], city=["Rome", "Bern", "Rome"])
    right = frame(age=[60.0, 80.0], city=["Oslo", None])
    columns = agreed(left, right)
    assert encoding.width(columns) == 2 + 4
    x = np.concatenate([encoding.encode(part, columns, True).numpy() for part in (left, right)])
    ages = np.array([20, 40, 50, 60, 80])
    known = np.array([20, 40, 60, 80])
    np.testing.assert_allclose(x[:, 0], (ages - known.mean()) / known.std(ddof=1), rtol=1e-6)
    assert x[:, 1].tolist() == [0, 0, 1, 0, 0]  # age is missing
    # Bern, Oslo, Rome, missing
    assert x[:, 2:].tolist() == [
        [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1],
    ]  # fmt: skip


@given(st.integers(1, 4), st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_agreement_does_not_depend_on_who_is_first(parts, seed):
    rng = np.random.default_rng(seed)
    frames = [frame(a=rng.normal(size=5), b=rng.choice(list("xyz"), 5)) for _ in range(parts)]
    forward, backward = agreed(*frames), agreed(*frames[::-1])
    assert [c["name"] for c in forward] == [c["name"] for c in backward]
    assert forward[0]["mean"] == pytest.approx(backward[0]["mean"])
    assert forward[1] == backward[1]


def test_integers_and_floats_spell_alike():
    # One missing value turns a column of integers into floats at one client only.
    columns = agreed(frame(k=[1, 2]), frame(k=[2.0, None]), categorical=["k"])
    assert columns[0]["values"] == ["1", "2"]


def test_unseen_categories_are_all_zero():
    columns = agreed(frame(c=["a", "b"]))
    assert encoding.encode(frame(c=["z", "a"]), columns, True).tolist() == [[0, 0], [1, 0]]


def test_nothing_is_told_beyond_need():
    table = frame(id=[f"p{i}" for i in range(300)], x=[float(i) for i in range(300)])
    told = encoding.describe_columns(table, ["id", "x"], [], sums=False)
    assert told["id"]["values"] is None and told["x"]["moments"] is None


def test_localize_takes_the_clients_own_statistics():
    mine, other = frame(x=[1.0, 3.0]), frame(x=[100.0, 300.0])
    local = encoding.localize(agreed(mine, other), mine)
    assert local[0]["mean"] == 2.0
    assert encoding.encode(mine, local, False).ravel().tolist() == [1.0, 3.0]


def test_columns_that_differ_are_refused():
    with pytest.raises(FedproofError, match="not all have 'b'"):
        encoding.agree_columns(
            [
                encoding.describe_columns(frame(a=[1]), ["a"], [], True),
                encoding.describe_columns(frame(a=[1], b=[2]), ["a", "b"], [], True),
            ]
        )
    with pytest.raises(FedproofError, match="'a' holds numbers at some clients and text"):
        agreed(frame(a=[1]), frame(a=["one"]))
    with pytest.raises(FedproofError, match="'a' has more than 200 categories"):
        agreed(frame(a=[f"v{i}" for i in range(201)]))
    with pytest.raises(FedproofError, match="'a' has more than 200 categories"):
        agreed(frame(a=[f"v{i}" for i in range(150)]), frame(a=[f"w{i}" for i in range(150)]))


def test_empty_columns_vanish():
    assert [c["name"] for c in agreed(frame(a=[1.0], b=[None]), frame(a=[2.0], b=[None]))] == ["a"]
    columns = agreed(frame(a=[1.0], b=[None]), frame(a=[2.0], b=[5.0]))
    assert [c["missing"] for c in columns] == [False, True]


def test_infinity_is_refused():
    with pytest.raises(FedproofError, match="infinite values"):
        agreed(frame(a=[1.0, float("inf")]))
