"""MLflow: a server's, or a database beside the run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conf.digest import plain
from conf.schema import Settings
from server_app.tracking import package

_LONGEST = 500
"""Characters of a parameter's value."""


def build(settings: Settings, run_dir: Path) -> MLflow:
    """Open a run in the experiment that the settings name."""
    client = package("mlflow").MlflowClient(_uri(settings, run_dir))
    name = str(settings.tracking.options["experiment"])
    known = client.get_experiment_by_name(name)
    experiment = client.create_experiment(name) if known is None else known.experiment_id
    run = client.create_run(experiment, run_name=run_dir.name).info.run_id
    for key, value in flat(plain(settings)).items():
        client.log_param(run, key, str(value)[:_LONGEST])
    return MLflow(client, run)


def _uri(settings: Settings, run_dir: Path) -> str:
    told = settings.tracking.options["uri"] or os.environ.get("MLFLOW_TRACKING_URI")
    return str(told) if told else f"sqlite:///{(run_dir.parent / 'mlflow.db').resolve()}"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


class MLflow:
    """A run of MLflow's."""

    def __init__(self, client: Any, run: str) -> None:
        self._client = client
        self._run = run
        self._last = 0

    def round(self, number: int, values: Mapping[str, float]) -> None:
        """Log a round's figures at its step."""
        self._last = number
        metric = package("mlflow").entities.Metric
        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run, metrics=[metric(key, value, now, number) for key, value in values.items()]
        )

    def summary(self, values: Mapping[str, float]) -> None:
        """Log the chosen model's figures under names of their own."""
        self.round(self._last, {f"final/{key}": value for key, value in values.items()})

    def close(self, *, finished: bool) -> None:
        """Mark the run as finished or failed."""
        self._client.set_terminated(self._run, "FINISHED" if finished else "FAILED")
