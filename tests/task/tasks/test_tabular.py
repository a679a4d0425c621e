import json

import numpy as np
import pandas
import pytest
import torch

from conf.errors import FedproofError
from conf.schema import Scaling, TaskConfig
from task.objectives import Binary, MultiClass
from task.tasks.tabular import StandardizedRegression, Task


def tabular(path=None, target="y", client=None, scaling=Scaling.federated, **options):
    options = {"kind": "auto", "categorical": [], "drop": []} | options
    config = TaskConfig(
        "tabular", path=path, target=target, client=client, scaling=scaling, options=options
    )
    return Task(config)


@pytest.fixture
def file(tmp_path):
    def write(name="table.csv", **columns):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        pandas.DataFrame(columns).to_csv(path, index=False)
        return path

    return write


def agreed(task, path):
    pool = task.load(path)
    return task.agree([task.describe(pool.rows)])


def test_a_column_names_the_clients(file):
    path = file(x=[1, 2, 3, 4], site=["a", "b", "a", "b"], y=[0, 1, 1, None])
    pool = tabular(client="site").load(path)
    # The row without a target is left out, with its client.
    assert pool.clients == ["a", "b", "a"] and list(pool.rows.columns) == ["x", "y"]
    assert pool.labels.tolist() == [0, 1, 1]


def test_a_folder_has_one_client_per_file(file, tmp_path):
    file("sites/rome.csv", x=[1.0, 2.0], y=["no", "yes"])
    file("sites/oslo.csv", x=[3.0], y=["yes"])
    assert tabular().load(tmp_path / "sites").clients == ["oslo", "rome", "rome"]


@pytest.mark.parametrize(
    ("target", "options", "kind", "classes"),
    [
        ([0, 1, 1, 0], {}, "binary", ["0", "1"]),
        (["good", "bad", "bad", "good"], {}, "binary", ["bad", "good"]),
        ([True, False, True, True], {}, "binary", ["False", "True"]),
        ([10, 9, 2, 2], {}, "multiclass", ["2", "9", "10"]),
        (["a", "b", "c", "a"], {}, "multiclass", ["a", "b", "c"]),
        ([0.5, 1.5, 2.5, 3.25], {}, "regression", None),
        ([1, 2, 3, 4], {"kind": "regression"}, "regression", None),
        ([-1.5, 2.5, -1.5, 2.5], {}, "binary", ["-1.5", "2.5"]),
        ([0, 1, 1, 0], {"kind": "multiclass"}, "multiclass", ["0", "1"]),
    ],
)
def test_the_kind_of_target(file, target, options, kind, classes):
    task = tabular(**options)
    shared = agreed(task, file(x=[1, 2, 3, 4], y=target))
    assert shared["target"]["kind"] == kind
    assert shared["target"].get("classes") == classes
    kinds = {"binary": Binary, "multiclass": MultiClass, "regression": StandardizedRegression}
    assert type(task.objective(shared)) is kinds[kind]
    outputs = len(classes) if kind == "multiclass" else 1
    assert task.spec(shared).outputs == outputs


def test_many_integers_are_a_quantity(file):
    shared = agreed(tabular(), file(x=range(30), y=range(30)))
    assert shared["target"] == {
        "kind": "regression",
        "mean": pytest.approx(14.5),
        "std": pytest.approx(np.std(range(30), ddof=1)),
    }


def test_classes_are_the_union_over_clients(file):
    task = tabular()
    paths = [file("1.csv", x=[1, 2], y=["a", "b"]), file("2.csv", x=[3, 4], y=["c", "a"])]
    pools = [task.load(path) for path in paths]
    shared = json.loads(json.dumps(task.agree([task.describe(pool.rows) for pool in pools])))
    data = task.prepare(pools[1].rows, pools[1].rows, shared)
    assert data.train.y.tolist() == [2, 0] and data.train.y.dtype == torch.int64


def test_nothing_of_a_quantity_is_told(file):
    task = tabular()
    told = task.describe(task.load(file(x=[1.5, 2.5, 7.125], y=[0.1, 0.2, 0.7])).rows)
    assert told["target"]["values"] is None
    assert "7.125" not in json.dumps(told)
    assert set(told["columns"]["x"]["moments"]) == {"count", "mean", "remainder", "deviations"}
    private = tabular(scaling=Scaling.local)
    told = private.describe(private.load(file(x=[1.5, 2.5], y=["a", "b"])).rows)
    assert told["columns"]["x"]["moments"] is None


def test_regression_reports_in_the_tables_units(file):
    task = tabular(kind="regression")
    path = file(x=[1, 2, 3, 4], y=[100.0, 200.0, 300.0, 400.0])
    pool, shared = task.load(path), agreed(task, path)
    data = task.prepare(pool.rows, pool.rows, shared)
    assert data.train.y.mean().item() == pytest.approx(0, abs=1e-6)
    guess = torch.zeros(4, 1)
    found = task.objective(shared).metrics(guess, data.train.y)
    assert found["mean_absolute_error"] == pytest.approx(100.0)
    assert found["root_mean_squared_error"] == pytest.approx(np.std([100, 200, 300, 400]))
    assert found["r2"] == pytest.approx(0.0)


def test_scaling_local_and_none(file):
    path = file(x=[1.0, 2.0, 3.0], y=[0, 1, 1])
    for scaling, expected in ((Scaling.none, [1, 2, 3]), (Scaling.local, [-1, 0, 1])):
        task = tabular(scaling=scaling)
        rows = task.load(path).rows
        data = task.prepare(rows, rows, agreed(task, path))
        assert data.train.x.ravel().tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"x": [1], "y": [1]}, {"target": None}, "needs task.target=COLUMN"),
        ({"x": [1], "y": [1]}, {"target": "z"}, "has no column 'z'"),
        ({"x": [1], "y": [1]}, {"client": "site"}, "has no column 'site'"),
        ({"x": [1], "y": [1]}, {"drop": ["w"]}, "has no column 'w'"),
        ({"y": [1, 2]}, {}, "has no columns besides 'y'"),
        ({"x": [1, 2], "y": [None, None]}, {}, "'y' .*is empty"),
        ({"x": [1, 2], "y": [3, 3]}, {}, "has 1 distinct value"),
        ({"x": [1, 2, 3], "y": [1, 2, 3]}, {"kind": "binary"}, "two classes are needed"),
        ({"x": [1, 2], "y": ["a", "b"]}, {"kind": "regression"}, "is text: regression needs"),
        ({"x": [1, 2], "y": [2, 2]}, {"kind": "regression"}, "has a single value"),
        ({"x": [1, 2], "y": [1, 2]}, {"kind": "ranking"}, "task.kind must be one of auto"),
        ({"x": range(300), "y": [f"p{i}" for i in range(300)]}, {}, "more than 200 classes"),
        ({"x": [None, None], "y": [0, 1]}, {}, "all columns are empty"),
        ({"x": [1, 2], "s": ["a", None], "y": [0, 1]}, {"client": "s"}, "no value in the client"),
    ],
)
def test_bad_tables(file, columns, settings, message):
    path = file(**columns)
    with pytest.raises(FedproofError, match=message) as caught:
        agreed(tabular(**settings), path)
    assert "\n" not in str(caught.value)


def test_path_is_needed():
    with pytest.raises(FedproofError, match="needs task.path=FILE"):
        tabular().load(None)


def test_a_class_that_only_a_held_out_row_has(file):
    task = tabular()
    train, test = (
        task.load(file(name, x=[1, 2], y=y)).rows
        for name, y in (("a.csv", ["u", "v"]), ("b.csv", ["u", "w"]))
    )
    with pytest.raises(FedproofError, match="class that no client's training rows had") as caught:
        task.prepare(train, test, task.agree([task.describe(train)]))
    assert "'w'" not in str(caught.value)


def test_targets_of_two_sorts(file):
    task = tabular()
    tables = [file("a.csv", x=[1], y=[1]), file("b.csv", x=[1], y=["one"])]
    with pytest.raises(FedproofError, match="numbers at some clients and text at others"):
        task.agree([task.describe(task.load(path).rows) for path in tables])
