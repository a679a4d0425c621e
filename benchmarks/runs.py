"""Run federations in this process and read their evidence: what the benchmarks share."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from conf.compose import compose, quote
from server_app.engines.local import run_local
from server_app.evaluate_model import held_out_metrics
from server_app.evidence.events import Event, watching
from server_app.evidence.files import MODEL, SUMMARY, read_json

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Outcome:
    """A finished run: its summary and model, and that model under other evaluation settings."""

    summary: dict[str, Any]
    model: dict[str, torch.Tensor]
    evaluations: list[tuple[dict[str, float], list[dict[str, Any]]]]


def run(overrides: Sequence[str], evaluate_with: Sequence[Sequence[str]] = ()) -> Outcome:
    """Train with `overrides` on one worker; evaluate the model once per further overrides."""
    with tempfile.TemporaryDirectory() as folder:
        return run_in(Path(folder), overrides, evaluate_with)


def run_in(
    folder: Path, overrides: Sequence[str], evaluate_with: Sequence[Sequence[str]] = ()
) -> Outcome:
    """Do the same in a folder that stays."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    told = ["federation.workers=1", *overrides, f"run_dir={quote(folder)}"]
    with watching(_ignore):
        run_local(compose(tuple(told)), told, str(ROOT))
    evaluations = [
        held_out_metrics(compose((*told, *extra)), folder / MODEL) for extra in evaluate_with
    ]
    return Outcome(read_json(folder / SUMMARY), load_file(folder / MODEL), evaluations)


def _ignore(_: Event) -> None:
    """Watch in silence: a run that nobody watches prints its progress."""


def read_results(name: str) -> dict[str, Any]:
    """Return a benchmark's figures so far, none if it was never run."""
    path = _results(name)
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def write_results(name: str, results: Any) -> Path:
    """Write a benchmark's figures under ``benchmarks/results/``."""
    path = _results(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return path


def _results(name: str) -> Path:
    return ROOT / "benchmarks" / "results" / f"{name}.json"
