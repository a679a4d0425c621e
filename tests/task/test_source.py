import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.compose import compose
from conf.errors import FedproofError
from task.source import DataSource, hold_out
from task.tasks.healthcare import EMBEDDED


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=200),
    st.floats(0.05, 0.9),
    st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_hold_out_is_stratified_to_the_row(labels, fraction, seed):
    y = np.array(labels)
    held_out = hold_out(len(y), fraction, y, np.random.default_rng(seed))
    assert abs(held_out.sum() - fraction * len(y)) <= 1
    assert not held_out.all()
    for label in np.unique(y):
        mine = y == label
        assert abs(held_out[mine].sum() - fraction * mine.sum()) <= 1
    again = hold_out(len(y), fraction, y, np.random.default_rng(seed))
    assert (held_out == again).all()


def test_every_row_has_an_equal_chance():
    counts = sum(
        hold_out(40, 0.25, None, np.random.default_rng(seed)).astype(int) for seed in range(400)
    )
    assert counts.min() > 60 and counts.max() < 145  # 100 expected, standard deviation 8.7


def test_no_rows_no_split():
    assert hold_out(0, 0.5, None, np.random.default_rng(0)).shape == (0,)


def test_nodes_share_all_clients_and_agree_on_their_rows():
    settings_ = compose(("partition=iid", "federation.clients=7"))
    whole = DataSource(settings_)
    parts = [DataSource(settings_, part=i, parts=3) for i in range(3)]
    assert sorted(client for part in parts for client in part.clients) == whole.clients
    for part in parts:
        for client in part.clients:
            assert (part.parts[client] == whole.parts[client]).all()
            assert part.size(client) == whole.size(client)


def test_a_silos_own_data_is_not_dealt(tmp_path):
    rows = [json.loads(line) for line in EMBEDDED.read_text().splitlines()]
    hungary = [row[1:] for row in rows if row[0] == "hungary"]
    file = tmp_path / "processed.hungary.data"
    lines = [",".join("?" if v is None else str(v) for v in row) for row in hungary]
    file.write_text("\n".join(lines) + "\n")
    own = DataSource(compose(("partition=iid", "federation.clients=9")), file)
    assert own.clients == ["hungary"]
    whole = DataSource(compose(()))
    assert own.size("hungary") == whole.size("hungary")
    mine, theirs = (s.data("hungary", {"mean": [0.0] * 6, "std": [1.0] * 6}) for s in (own, whole))
    assert mine.train.x.equal(theirs.train.x) and mine.test.y.equal(theirs.test.y)
    named = DataSource(compose(()), file, name="ward 7")
    assert named.clients == ["ward 7"] and sum(named.size("ward 7")) == len(hungary)


def test_a_client_of_another_node_is_refused():
    with pytest.raises(FedproofError, match="'atlantis' is not served"):
        DataSource(compose(())).size("atlantis")
