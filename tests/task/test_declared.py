"""What a declared column's cell means depends on that cell alone."""

from __future__ import annotations

import math

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.compose import compose
from conf.errors import FedproofError
from task.declared import category_codes, cell_numbers, declared_categories, spell_cell
from task.source import DataSource

RUN = (
    "task=tabular", "task.target=ill", "task.scaling=none", "task.kind=binary",
    "task.columns=[age]", "task.categories.ward=[1,b,true]", "task.categories.ill=[no,yes]",
    "privacy=record_dp", "privacy.sigma=1",
)  # fmt: skip
CELLS = st.sampled_from(["1", "1.0", "b", "c", "true", "TRUE", "", "NA", "7.5", "1e400", "-2"])
ROWS = st.tuples(CELLS, CELLS, st.sampled_from(["no", "yes", "maybe", ""]))


def prepared(folder, rows):
    """Return the features of each row of a file, by its line."""
    path = folder / "table.csv"
    lines = ["age,ward,ill,line", *(",".join([*row, str(i)]) for i, row in enumerate(rows))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = DataSource(compose(RUN), path, "a")
    pool = source.pool.rows
    data = source.task.prepare(pool, pool, source.task.derive_shared()).train
    return data.x.numpy(), data.y.numpy()


@given(st.lists(ROWS, min_size=1, max_size=8), ROWS)
@settings(deadline=None, max_examples=60)
def test_no_row_changes_what_another_means(tmp_path_factory, rows, other):
    folder = tmp_path_factory.mktemp("tables")
    anchor = ("3", "b", "yes")  # so that no table is empty
    x, y = prepared(folder, [*rows, anchor])
    more, labels = prepared(folder, [*rows, anchor, other])
    assert np.array_equal(more[: len(x)], x) and np.array_equal(labels[: len(y)], y)


def test_what_is_unknown_or_missing(tmp_path):
    rows = [("31", "b", "yes"), ("", "z", "no"), ("old", "", "yes"), ("1e999", "1.0", "maybe")]
    x, y = prepared(tmp_path, rows)
    # The last row's target is no declared class. Features: age, age is missing, then the wards.
    assert x.tolist() == [[31, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 1, 0, 0, 0]]
    assert y.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), (1.0, "1"), ("1.0", "1"), (True, "True"), ("TRUE", "True"), (" b ", "b"),
     ("1.50", "1.5"), ("nan", "nan"), ("inf", "inf"), ("007", "7")],
)  # fmt: skip
def test_cells_are_spelled_by_themselves(value, text):
    assert spell_cell(value) == text


def test_codes_and_numbers():
    values = pandas.Series(["a", None, "z", "1.0"], name="c")
    assert category_codes(values, ["a", "1"]).tolist() == [0, -1, -1, 1]
    assert category_codes(values[:0], ["a", "1"]).tolist() == []
    found = cell_numbers(pandas.Series(["1", "x", None, "inf", "true"]))
    assert found[[0, 4]].tolist() == [1, 1] and all(math.isnan(v) for v in found[1:4])
    assert cell_numbers(pandas.Series([True, False])).tolist() == [1, 0]


@pytest.mark.parametrize("values", [["a"], ["a", "a"], ["1", 1], "ab", [["a"], ["b"]], None])
def test_what_declares_no_categories(values):
    with pytest.raises(FedproofError, match=r"task.categories.ward must"):
        declared_categories({"categories": {"ward": values}})


def test_two_classes_for_a_binary_target():
    settings = compose((*RUN, "task.categories.ill=[a,b,c]"))
    with pytest.raises(FedproofError, match="names 3 classes, which task.kind=binary does not"):
        DataSource(settings).task.derive_shared()


def test_a_declared_column_that_is_not_there(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("age,ill\n1,no\n", encoding="utf-8")
    with pytest.raises(FedproofError, match="no column 'ward'"):
        DataSource(compose(RUN), path, "a").pool  # noqa: B018


def test_columns_with_spaces_are_declared_in_one_piece():
    settings = compose(("task=tabular", "task.categories={blood group:[a,b]}"))
    assert declared_categories(settings.task.options) == {"blood group": ["a", "b"]}
