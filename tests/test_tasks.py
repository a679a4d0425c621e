"""Every task runs on its embedded data, on an in-process Grid."""

import csv
import json

import numpy as np
import pytest

from conf.compose import CONFIG_DIR
from server_app.evidence import files

# The least settings with which each learns something, and what it must reach.
RUNS = {
    "healthcare": (["rounds=3"], "auroc", 0.7),
    "finance": (["rounds=2", "federation.clients=8"], "auroc", 0.6),
    "keyboard": (
        ["rounds=2", "federation.clients=3", "federation.fraction=1", "train.epochs=2",
         "model.hidden=32"], "accuracy", 0.15,
    ),
    "iot": (
        ["rounds=3", "task.split=rows", "federation.clients=6", "model.channels=[16,16]"],
        "accuracy", 0.4,
    ),
    "vision": (["rounds=2", "federation.clients=4"], "accuracy", 0.6),
    "synthetic": (["rounds=4", "task.clients=20", "federation.fraction=1"], "accuracy", 0.2),
}  # fmt: skip


@pytest.mark.parametrize("task", RUNS)
def test_embedded_data(task, federate):
    overrides, metric, least = RUNS[task]
    ran = federate(f"task={task}", *overrides, nodes=2)
    held_out = ran.summary["held_out"]
    assert held_out[metric] > least
    assert held_out["loss"] < ran.rounds[0]["held_out"]["loss"] * 1.5
    clients = files.read_lines(ran.directory / files.CLIENTS)
    assert {row["client"] for row in clients} and all(np.isfinite(row["loss"]) for row in clients)


@pytest.fixture
def table(tmp_path):
    """Four shops of unequal size; the target depends on both columns, and on a missing value."""
    rng = np.random.default_rng(0)
    path = tmp_path / "table.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "city", "shop", "buys", "spends", "tier"])
        for _ in range(600):
            age, city = rng.integers(18, 80), rng.choice(["Rome", "Oslo", "Bern"])
            score = (age - 50) / 15 + (city == "Rome") + rng.normal(0, 0.3)
            writer.writerow(
                [age if rng.random() > 0.1 else "", city, rng.choice(list("abcd")),
                 "yes" if score > 0 else "no", round(100 + 20 * score, 2),
                 ["low", "mid", "high"][int(np.digitize(score, [-1, 1]))]]
            )  # fmt: skip
    return path


@pytest.mark.parametrize(
    ("target", "drop", "metric", "least"),
    [
        ("buys", ["spends", "tier"], "auroc", 0.85),
        ("spends", ["buys", "tier"], "r2", 0.5),
        ("tier", ["buys", "spends"], "f1_macro", 0.45),
    ],
)
@pytest.mark.parametrize("model", ["mlp", "logistic"])
def test_a_table_of_your_own(table, federate, target, drop, metric, least, model):
    ran = federate(
        "task=tabular", f"model={model}", f"task.path={table}", f"task.target={target}",
        "task.client=shop", f"task.drop=[{','.join(drop)}]", f"task.metric={metric}", "rounds=10",
        nodes=2,
    )  # fmt: skip
    assert ran.summary["clients"] == 4
    assert ran.summary["held_out"][metric] > least


def test_a_file_per_supernode(table, federate, tmp_path):
    """The silos' files, each on its own node, give what one table with a client column gives."""
    with table.open() as file:
        header, *rows = list(csv.reader(file))
    silos = []
    for shop in "abcd":
        silos.append(tmp_path / f"{shop}.csv")
        mine = [row[:2] + row[3:4] for row in rows if row[2] == shop]
        with silos[-1].open("w", newline="") as file:
            csv.writer(file).writerows([header[:2] + header[3:4], *mine])
    settings = ["task=tabular", "task.target=buys", "rounds=3"]
    apart = federate(*settings, nodes=[{"data": str(silo), "held-out": "seed"} for silo in silos])
    together = federate(
        *settings, f"task.path={table}", "task.client=shop", "task.drop=[spends,tier]"
    )
    assert apart.model == together.model
    assert apart.summary["held_out"] == together.summary["held_out"]


def test_embedded_files_are_small_and_say_where_they_are_from(request):
    data = request.config.rootpath / "task" / "data"
    embedded = sorted(data.glob("*.jsonl"))
    assert [path.stem for path in embedded] == ["hapt", "heart", "loans", "shakespeare"]
    for path in embedded:
        assert path.stat().st_size <= 2_000_000
        assert "icence" in path.with_suffix(".md").read_text() or "CC BY" in (
            path.with_suffix(".md").read_text()
        )
        with path.open() as lines:
            assert all(isinstance(json.loads(line), list) for line in lines)


@pytest.mark.parametrize("path", sorted((CONFIG_DIR / "task").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_task_has_a_run_here(path):
    assert path.stem in {*RUNS, "tabular"}
