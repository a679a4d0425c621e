"""A matrix runs every combination once, and tells what came out."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from conf.compose import compose
from conf.errors import FedproofError
from server_app.evidence import files
from server_app.matrix import overrides_of, run_matrix, shares

SMALL = (
    "experiment=poisoning", "rounds=1", "train.epochs=1", "matrix.rows=[none,backdoor,huge]",
    "matrix.columns=[fedavg,nnm+fedmedian]", "matrix.pages=[iid]",
)  # fmt: skip


def test_values_on_an_axis() -> None:
    assert overrides_of("attack", "alie attack.z=1") == ["attack=alie", "attack.z=1"]
    assert overrides_of("strategy", "krum") == ["strategy=krum"]
    told = ["strategy=krum", "defence=norm_clip", "defence.then=[nnm]"]
    assert overrides_of("strategy", "norm_clip+nnm+krum") == told


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_matrix(compose(SMALL), SMALL, tmp_path)
    told = files.read_json(tmp_path / "matrix.json")
    cells = {(cell["row"], cell["column"]): cell for cell in told["cells"]}
    assert len(cells) == 6
    assert cells["none", "fedavg"]["caught"] is None
    assert cells["backdoor", "fedavg"]["backdoor"] > cells["backdoor", "nnm+fedmedian"]["backdoor"]
    assert cells["huge", "nnm+fedmedian"]["flagged"] == 1
    assert cells["huge", "fedavg"]["score"] < 0.2
    with (tmp_path / "matrix.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6
    assert (tmp_path / "matrix.png").stat().st_size > 1000
    assert "nnm+" in capsys.readouterr().out
    # What is there already is not run again.
    model = tmp_path / "cells" / "iid" / "none" / "fedavg" / "model.safetensors"
    written = model.stat().st_mtime_ns
    run_matrix(compose(SMALL), SMALL, tmp_path)
    assert model.stat().st_mtime_ns == written


def test_a_wrong_value_is_refused_before_anything_runs(tmp_path: Path) -> None:
    wrong = (*SMALL[:3], "matrix.rows=[none,treason]", *SMALL[4:])
    with pytest.raises(FedproofError, match="treason"):
        run_matrix(compose(wrong), wrong, tmp_path)
    assert not list(tmp_path.iterdir())


def test_who_was_caught_and_who_was_hurt() -> None:
    lines = [
        {"sampled": ["a", "b", "c"], "failed": {"a": "NaN"}},
        {
            "sampled": ["a", "b", "c"], "failed": {}, "anomaly": {"a": 9.0, "b": 0.1, "c": 4.0},
            "defence": {"excluded": ["b"], "clipped": ["c"]},
        },
    ]  # fmt: skip
    found = shares(lines, {"a"})
    assert found == {"caught": 0.5, "hurt": 0.25, "flagged": 1.0, "suspected": 0.5}
    assert set(shares(lines, set()).values()) == {None}


@pytest.mark.parametrize("name", ["poisoning", "heterogeneity"])
def test_every_cell_of_an_experiment_composes_by_axis(name: str) -> None:
    matrix = compose((f"experiment={name}",)).matrix
    axes = ((matrix.row, matrix.rows), (matrix.column, matrix.columns), (matrix.page, matrix.pages))
    for key, values in axes:
        for value in values if key else []:
            compose((f"experiment={name}", *overrides_of(str(key), value)))
