"""Evaluate a saved model on the held-out rows of the clients whose data this machine has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from conf.errors import FedproofError
from conf.schema import Settings
from server_app import checkpoint
from server_app.evidence import files
from server_app.evidence.tables import human_bytes, metrics_table
from task.evaluation import add, evaluate
from task.flat import FlatModel, build_model
from task.objectives import Metrics, Statistics
from task.source import DataSource


def evaluate_saved(settings: Settings, path: Path, run_dir: Path) -> None:
    """Print per-client and pooled metrics of the model at `path`; write ``evaluation.json``.

    Raises
    ------
    FedproofError
        If there is no such model, or it does not fit the task.
    """
    path = path / files.MODEL if path.is_dir() else path
    pooled, rows = held_out_metrics(settings, path)
    files.write_json(run_dir / "evaluation.json", {"held_out": pooled, "clients": rows})
    console = Console(highlight=False)
    console.print(metrics_table(rows, settings.task.metric))
    figures = " · ".join(f"{name} {value:.4f}" for name, value in sorted(pooled.items()))
    console.print(f"{path} ({human_bytes(path.stat().st_size)}): {figures}", soft_wrap=True)


def held_out_metrics(settings: Settings, path: Path) -> tuple[Metrics, list[dict[str, Any]]]:
    """Return the metrics of a saved model on all clients' held-out rows, and client by client."""
    tensors, _ = checkpoint.load(path)
    source = DataSource(settings)
    trainable = [client for client in source.clients if source.size(client)[0]]
    shared = source.task.agree([source.describe(client) for client in trainable])
    objective = source.task.objective(shared)
    model = FlatModel(build_model(settings, source.task.spec(shared)))
    try:
        model.load(tensors)
    except RuntimeError:
        raise FedproofError(
            f"{path} does not fit task={settings.task.name} model={settings.model.name}: give the "
            "overrides that it was trained with."
        ) from None
    sums: Statistics = {}
    rows: list[dict[str, Any]] = []
    for client in source.clients:
        held_out = source.data(client, shared).test
        if len(held_out):
            result = evaluate(model.module, held_out, objective)
            sums = add(sums, result.statistics)
            rows.append({"client": client, "num-examples": len(held_out), **result.metrics})
    return objective.pooled(sums), rows
