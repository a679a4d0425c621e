"""What is told before training, where noise and masks do not reach, is no sum over rows."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from conf.compose import compose
from conf.errors import FedproofError
from task.privacy.policy import mechanism_of
from task.secure import protection_of
from task.tasks.tabular import Task

PROTECTED = {
    "privacy": (("privacy=record_dp", "privacy.sigma=1.0"), mechanism_of),
    "secure": (("aggregation=secagg",), protection_of),
}
TABLE = ("task=tabular", "task.path=ill.csv", "task.target=ill")


@pytest.mark.parametrize("case", PROTECTED)
@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (("task=healthcare", "task.scaling=federated"), "choose task.scaling=local"),
        ((*TABLE, "task.scaling=none", "task.kind=binary"), "fills gaps.*task.scaling=local"),
        ((*TABLE, "task.scaling=local"), "task.kind=auto tells sums.*binary or multiclass"),
        ((*TABLE, "task.scaling=local", "task.kind=regression"), "task.kind=regression tells sums"),
    ],
)
def test_sums_over_rows_are_refused(case, told, sentence):
    overrides, checked = PROTECTED[case]
    with pytest.raises(FedproofError, match=f"beforehand; .*{sentence}") as refused:
        checked(compose((*told, *overrides)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_what_is_allowed_tells_no_number_of_any_row(kind):
    """Columns, categories and classes only: the same for other rows of the same kind."""
    told = (*TABLE, "task.scaling=local", f"task.kind={kind}", "aggregation=secagg")
    settings = compose(told)
    assert protection_of(settings) is not None
    task = Task(settings.task)
    one = pd.DataFrame({"age": [31.0, 47.5, 60.0], "ward": ["a", "b", "a"], "ill": [0, 1, 1]})
    other = pd.DataFrame({"age": [18.5, 22.0, 90.0], "ward": ["b", "a", "b"], "ill": [1, 0, 0]})
    assert json.dumps(task.describe(one)) == json.dumps(task.describe(other))
