"""Evaluate a saved model on the held-out rows of the clients whose data this machine has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from conf.errors import FedproofError
from conf.schema import Settings
from server_app import checkpoint
from server_app.evidence import files
from server_app.evidence.tables import human_bytes, metrics_table
from task.base import ModelSpec
from task.clusters import apart
from task.evaluation import add, pooled
from task.flat import FlatModel, State, build_model
from task.objectives import Metrics, Statistics
from task.personalization import layout_of, personalization_of
from task.personalization.models import Load, Models
from task.source import DataSource, agreement
from task.store import ClientStore


def evaluate_saved(settings: Settings, path: Path, run_dir: Path) -> None:
    """Print per-client and pooled metrics of the model at `path`; write ``evaluation.json``.

    Clients' personal models are made of it and of what clients keep beside it, if they do here.

    Raises
    ------
    FedproofError
        If there is no such model, or it does not fit the task.
    """
    path = path / files.MODEL if path.is_dir() else path
    metrics, rows = held_out_metrics(settings, path)
    files.write_json(run_dir / "evaluation.json", {"held_out": metrics, "clients": rows})
    console = Console(highlight=False)
    console.print(metrics_table(rows, settings.task.metric))
    figures = " · ".join(f"{name} {value:.4f}" for name, value in sorted(metrics.items()))
    console.print(f"{path} ({human_bytes(path.stat().st_size)}): {figures}", soft_wrap=True)


def held_out_metrics(settings: Settings, path: Path) -> tuple[Metrics, list[dict[str, Any]]]:
    """Return the metrics of a saved model on all clients' held-out rows, and client by client."""
    tensors, _ = checkpoint.load(path)
    source = DataSource(settings)
    trainable = [client for client in source.clients if source.size(client)[0]]
    shared = agreement(settings, source.task, map(source.describe, trainable))
    objective = source.task.objective(shared)
    models = Models(
        personalization_of(settings),
        objective,
        _loader(settings, path, source.task.spec(shared), apart(tensors)),
    )
    number, store = _kept(path.parent)
    sums: Statistics = {}
    rows: list[dict[str, Any]] = []
    for client in source.clients:
        data = source.data(client, shared)
        if len(data.test):
            kept = store.load(client, number + 1) if store is not None else {}
            result = models.evaluate(client, data, kept, settings, number)
            sums = add(sums, result.statistics)
            rows.append({"client": client, "num-examples": len(data.test), **result.metrics})
    return pooled(objective, sums), rows


def _loader(settings: Settings, path: Path, spec: ModelSpec, models: Mapping[int, State]) -> Load:
    """Return what fills a model with the one of a number at `path`, and what a client kept."""
    layout, model = layout_of(settings, spec), FlatModel(build_model(settings, spec))

    def load(kept: Mapping[str, Tensor], number: int) -> FlatModel:
        try:
            model.load(layout.complete(models[number], kept))
        except (RuntimeError, KeyError):
            raise FedproofError(
                f"{path} does not fit task={settings.task.name} model={settings.model.name}: give "
                "the overrides that it was trained with."
            ) from None
        return model

    return load


def _kept(directory: Path) -> tuple[int, ClientStore | None]:
    """Return a run's last round, and where its clients keep what they do, if that is here."""
    path, folder = directory / checkpoint.CHECKPOINT, directory / "clients"
    if not path.is_file():
        return 0, None
    _, facts = checkpoint.load(path)
    lineage = [(str(name), int(start)) for name, start in facts["lineage"]]
    return int(facts["round"]), ClientStore(folder, lineage) if folder.is_dir() else None
