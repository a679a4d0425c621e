import io
import json

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.compose import compose
from conf.errors import FedproofError
from task.base import Examples
from task.held_out import example_digests, keyed_held_out, pin_split, table_digests
from task.source import DataSource
from task.tasks.healthcare import EMBEDDED

KEY = bytes(range(32))


def test_the_share_is_the_fraction_and_nested():
    digests = np.arange(20_000, dtype=np.uint64)
    small, large = (keyed_held_out(digests, fraction, KEY) for fraction in (0.2, 0.5))
    # Standard deviations of the shares: 0.0028 and 0.0035.
    assert abs(small.mean() - 0.2) < 0.015 and abs(large.mean() - 0.5) < 0.018
    assert not (small & ~large).any()
    assert not keyed_held_out(digests, 0.0, KEY).any()


def test_another_key_holds_out_independent_rows():
    digests = np.arange(20_000, dtype=np.uint64)
    mine, other = (keyed_held_out(digests, 0.25, key) for key in (KEY, bytes(32)))
    assert abs((mine & other).mean() - 0.0625) < 0.01


def test_examples_are_told_apart_by_input_and_target():
    x = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [0.0, 2.0], [0.0, 1.0]])
    digests = example_digests(Examples(x, torch.tensor([0, 0, 0, 1])))
    assert digests[0] == digests[1]
    assert len(set(digests.tolist())) == 3


CELLS = st.sampled_from(["5", "5.0", "07", "x", "", "True", "12.5", "NA", "yes", "1e3"])


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12), st.tuples(CELLS, CELLS))
@settings(max_examples=150, deadline=None)
def test_an_appended_row_moves_no_other_row_of_a_csv(rows, appended):
    """Whatever it does to the columns' types."""

    def read(lines):
        text = "a,b\n" + "".join(f"{a},{b}\n" for a, b in lines)
        return pandas.read_csv(io.StringIO(text), low_memory=False, skip_blank_lines=False)

    before, after = table_digests(read(rows)), table_digests(read([*rows, appended]))
    assert (after[: len(rows)] == before).all()


def test_cells_and_columns_are_told_apart():
    table = pandas.DataFrame({"a": [1, 2, 1], "b": [2, 1, 1], "c": ["x", "x", "x"]})
    digests = table_digests(table)
    assert len(set(digests.tolist())) == 3
    assert (table_digests(table[["c", "a", "b"]]) == digests).all()
    assert (table_digests(table.drop(columns="c")) != digests).all()


@pytest.fixture
def hospital(tmp_path):
    rows = [json.loads(line)[1:] for line in EMBEDDED.read_text().splitlines()]
    file = tmp_path / "processed.ward.data"
    lines = [",".join("?" if v is None else str(v) for v in row) for row in rows[:300]]
    file.write_text("\n".join(lines) + "\n")
    return file


def held_out_rows(file, *overrides, key=KEY):
    source = DataSource(compose(overrides), file, split_key=key)
    train, test = source.split("ward")
    return set(train.tolist()), set(test.tolist())


def test_no_setting_of_a_run_chooses_other_rows(hospital):
    """The attack: two evaluations of runs that differ in seed or options read training rows."""
    train, test = held_out_rows(hospital)
    for told in (("seed=1",), ("seed=7", "task.scaling=local"), ("partition=iid", "seed=3")):
        assert held_out_rows(hospital, *told) == (train, test)
    whole = DataSource(compose(()), hospital, split_key=KEY)
    fewer = DataSource(compose(("task.features=flamby",)), hospital, split_key=KEY)
    held_out = whole._digests[sorted(test)]
    mine = fewer._digests[fewer.split("ward")[1]]
    assert len(mine) and np.isin(mine, held_out).all()


def test_a_row_more_moves_no_row(hospital):
    """The attack: one appended row moved 56 of 198 training rows to the held-out ones."""
    train, test = held_out_rows(hospital)
    text = hospital.read_text()
    hospital.write_text(text + "41,1,2,?,204,0,2,172,0,1.4,1,0,3,1\n")
    after_train, after_test = held_out_rows(hospital)
    new = {len(train) + len(test)}
    assert after_train - new == train and after_test - new == test


def test_a_table_holds_out_the_same_rows_whatever_is_used_of_it(tmp_path):
    rng = np.random.default_rng(0)
    file = tmp_path / "ward.csv"
    pandas.DataFrame(
        {"x": rng.normal(size=200), "y": rng.integers(0, 2, 200), "z": rng.integers(0, 2, 200)}
    ).to_csv(file, index=False)
    base = ("task=tabular", "task.kind=binary")
    first = held_out_rows(file, *base, "task.target=y")
    assert held_out_rows(file, *base, "task.target=z", "task.drop=[x]") == first
    assert 20 < len(first[1]) < 80


def test_the_rule_of_a_split_is_pinned(tmp_path):
    """The attack: two fractions, of which the larger evaluates what the smaller trained on."""
    path = tmp_path / "source.split"
    pin_split(path, "task.test_fraction=0.25")
    pin_split(path, "task.test_fraction=0.25")
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FedproofError, match=r"by task.test_fraction=0.25, this one by .*=0.5"):
        pin_split(path, "task.test_fraction=0.5")
    path.write_text("")
    with pytest.raises(FedproofError, match="a rule that was not written"):
        pin_split(path, "task.test_fraction=0.25")
    with pytest.raises(FedproofError, match="cannot be kept"):
        pin_split(tmp_path / "nowhere" / "source.split", "task.test_fraction=0.25")
