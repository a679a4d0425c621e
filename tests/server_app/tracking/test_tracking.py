"""Trackers, with packages that write down what they are told."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from conf.compose import compose
from conf.errors import FedproofError
from server_app.tracking import tracked

ROUND = {"event": "round", "round": 3, "train": {"loss": 0.5}, "seconds": 1.0, "failed": {}}
SUMMARY = {"event": "summary", "held_out": {"accuracy": 0.8}}


def run(name: str, directory: Path, *more: str, error: Exception | None = None) -> list[Any]:
    seen: list[Any] = []
    with tracked(compose((f"tracking={name}", *more)), directory, seen.append) as watcher:
        watcher(ROUND)
        watcher(SUMMARY)
        if error:
            raise error
    return seen


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = MagicMock()
    fake.entities.Metric = lambda key, value, at, step: (key, value, step)
    fake.MlflowClient.return_value.get_experiment_by_name.return_value = None
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return fake


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = MagicMock()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_none_leaves_the_watcher_alone(tmp_path: Path) -> None:
    assert run("none", tmp_path) == [ROUND, SUMMARY]


def test_mlflow(mlflow: Any, tmp_path: Path) -> None:
    assert run("mlflow", tmp_path / "run") == [ROUND, SUMMARY]
    mlflow.MlflowClient.assert_called_once_with(f"sqlite:///{tmp_path}/mlflow.db")
    client = mlflow.MlflowClient.return_value
    logged = [call.kwargs["metrics"] for call in client.log_batch.call_args_list]
    assert logged == [
        [("train/loss", 0.5, 3), ("run/seconds", 1.0, 3)], [("final/held_out/accuracy", 0.8, 3)]
    ]  # fmt: skip
    params = {call.args[1]: call.args[2] for call in client.log_param.call_args_list}
    assert params["train.lr"] == "0.05" and params["task.name"] == "healthcare"
    assert client.set_terminated.call_args.args[1] == "FINISHED"


def test_mlflow_goes_to_the_server_that_is_named(mlflow: Any, tmp_path: Path) -> None:
    mlflow.MlflowClient.return_value.get_experiment_by_name.return_value = SimpleNamespace(
        experiment_id="7"
    )
    with pytest.raises(ValueError, match="lost"):
        run("mlflow", tmp_path, "tracking.uri=here", error=ValueError("lost"))
    mlflow.MlflowClient.assert_called_once_with("here")
    client = mlflow.MlflowClient.return_value
    assert client.create_run.call_args.args == ("7",)
    assert client.set_terminated.call_args.args[1] == "FAILED"


def test_wandb_is_offline_unless_told(wandb: Any, tmp_path: Path) -> None:
    run("wandb", tmp_path / "run")
    told = wandb.init.call_args.kwargs
    assert (told["mode"], told["project"], told["name"]) == ("offline", "fedproof", "run")
    assert told["dir"] == str(tmp_path / "run") and told["config"]["rounds"] == 15
    logged = wandb.init.return_value
    logged.log.assert_called_once_with({"train/loss": 0.5, "run/seconds": 1.0}, step=3)
    logged.summary.update.assert_called_once_with({"final/held_out/accuracy": 0.8})
    logged.finish.assert_called_once_with(exit_code=0)


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(FedproofError, match=f"uv run --extra {name} fedproof"):
        run(name, tmp_path)


def test_a_tracker_that_fails_does_not_end_the_run(
    mlflow: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []
    settings = compose(("tracking=mlflow",))
    mlflow.MlflowClient.return_value.log_batch.side_effect = ConnectionError("no server\nat all")
    with tracked(settings, tmp_path, seen.append) as watcher:
        for number in (1, 2):
            watcher({"event": "round", "round": number, "train": {"loss": 1.0}})
    assert len(seen) == 2
    said = capsys.readouterr().err
    assert said == "fedproof: tracking=mlflow failed (no server): the run goes on without it.\n"
    mlflow.MlflowClient.side_effect = ConnectionError("gone")
    with tracked(settings, tmp_path, seen.append) as watcher:
        watcher({"event": "round", "round": 3, "train": {"loss": 1.0}})
    assert len(seen) == 3 and "(gone)" in capsys.readouterr().err
