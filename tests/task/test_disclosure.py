"""What is told before training, where noise and masks do not reach, is no sum over rows."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from conf.compose import CONFIG_DIR, compose
from conf.errors import FedproofError
from task.privacy.policy import mechanism_of
from task.secure import protection_of
from task.source import DataSource, agreement, load_task

PROTECTED = {
    "privacy": (("privacy=record_dp", "privacy.sigma=1.0"), mechanism_of),
    "secure": (("aggregation=secagg",), protection_of),
}
TABLE = ("task=tabular", "task.path=ill.csv", "task.target=ill")
DECLARED = (
    *TABLE, "task.scaling=local", "task.kind=binary", "task.columns=[age]",
    "task.categories.ward=[a,b]", "task.categories.ill=[0,1]",
)  # fmt: skip
UNDECLARED = "tells the columns and categories.*task.columns.*task.categories.COLUMN"


@pytest.mark.parametrize("case", PROTECTED)
@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (("task=healthcare", "task.scaling=federated"), "choose task.scaling=local"),
        ((*DECLARED, "task.scaling=federated"), "choose task.scaling=local"),
        ((*TABLE, "task.scaling=local", "task.kind=binary"), UNDECLARED),
        ((*TABLE, "task.scaling=none", "task.kind=binary", "task.columns=[age]"), UNDECLARED),
        (
            (*TABLE, "task.scaling=none", "task.kind=binary", "task.categories.ward=[a,b]"),
            UNDECLARED,
        ),
        (
            (*TABLE, "task.scaling=none", "task.kind=binary", "task.categories.ill=[a,b]"),
            UNDECLARED,
        ),
        ((*TABLE, "task.scaling=local"), "task.kind=auto tells sums.*binary or multiclass"),
        ((*TABLE, "task.scaling=local", "task.kind=regression"), "task.kind=regression tells sums"),
    ],
)
def test_sums_over_rows_are_refused(case, told, sentence):
    overrides, checked = PROTECTED[case]
    with pytest.raises(FedproofError, match=f"beforehand; .*{sentence}") as refused:
        checked(compose((*told, *overrides)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("case", PROTECTED)
@pytest.mark.parametrize("scaling", ["local", "none"])
def test_of_protected_rows_nothing_is_told(case, scaling, tmp_path):
    """Whatever the file holds: what all clients share follows from the settings alone."""
    overrides, checked = PROTECTED[case]
    settings = compose((*DECLARED, f"task.scaling={scaling}", *overrides))
    assert checked(settings) is not None
    task = load_task(settings)
    shared = []
    for number, rows in enumerate((
        {"age": [31.0, 47.5, 60.0], "ward": ["a", "b", "a"], "ill": [0, 1, 1]},
        {"age": [18, None, 90], "ward": ["b", "Jane Doe", None], "ill": [1, 0, 0]},
    )):  # fmt: skip
        path = tmp_path / f"{number}.csv"
        pd.DataFrame(rows).to_csv(path, index=False)
        source = DataSource(settings, path, "a")
        assert source.describe("a") == {}
        shared.append(json.dumps(agreement(settings, task, [source.describe("a")])))
    assert shared[0] == shared[1]


def test_plain_runs_tell_nothing_of_columns_that_are_declared(tmp_path):
    settings = compose((*TABLE, "task.kind=binary", *DECLARED[-2:]))
    path = tmp_path / "a.csv"
    pd.DataFrame({"age": [1, 2], "ward": ["a", "Jane Doe"], "ill": [0, 1]}).to_csv(path)
    told = DataSource(settings, path, "a").describe("a")
    assert "Jane" not in json.dumps(told) and told["target"] == {}
    assert set(told["columns"]) == {"Unnamed: 0", "age"}
    columns = {c["name"]: c for c in load_task(settings).agree([told])["columns"]}
    assert columns["ward"]["values"] == ["a", "b"]


def test_the_operators_categories_are_told_in_place_of_those_in_the_rows(tmp_path):
    settings = compose((*TABLE, "task.kind=binary"))
    path = tmp_path / "a.csv"
    pd.DataFrame({"age": [1, 2, 3], "ward": ["a", "Jane Doe", "a"], "ill": ["no", "yes", "well"]}
                 ).to_csv(path, index=False)  # fmt: skip
    source = DataSource(
        settings, path, "a", categories={"ward": ("b", "a"), "ill": ("yes", "no"), "more": ("x",)}
    )
    told = source.describe("a")
    assert told["columns"]["ward"]["values"] == ["a", "b"]
    assert told["target"]["values"] == ["no", "yes"] and set(told["columns"]) == {"age", "ward"}
    assert not {"Jane", "well"} & {*json.dumps(told).replace('"', " ").split()}


TASKS = ("healthcare", "finance", "iot", "keyboard", "vision", "synthetic")


@pytest.mark.parametrize("task", TASKS)
def test_other_tasks_share_what_their_settings_say(task):
    scaling = () if task == "synthetic" else ("task.scaling=local",)
    settings = compose((f"task={task}", *scaling, "privacy=record_dp", "privacy.sigma=1"))
    assert load_task(settings).derive_shared() == {}


def test_every_task_is_looked_at():
    names = {path.stem for path in (CONFIG_DIR / "task").glob("*.yaml")}
    assert names == {*TASKS, "tabular"}
