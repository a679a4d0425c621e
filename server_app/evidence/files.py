"""The files of a run directory: whole or not at all, and readable after a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from task.atomic import atomic

CONFIG = "config.yaml"
RUN = "run.json"
METRICS = "metrics.jsonl"
CLIENTS = "clients.jsonl"
SUMMARY = "summary.json"
BASELINES = "baselines.json"
COMPARISON = "comparison.json"
OUTCOME = "outcome.json"
REPORT = "report.html"
MODEL = "model.safetensors"


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replace a JSON file atomically."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append JSON lines with one durable write, so that a crash tears at most the last line."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a torn last line is left out."""
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def keep_rounds(path: Path, rounds: int) -> None:
    """Drop the lines of rounds after `rounds`: a resumed run does them again."""
    if path.exists():
        rows = [row for row in read_lines(path) if row["round"] <= rounds]
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    names = ("fedproof", "flwr", "torch", "numpy")
    return {name: version(name) for name in names} | {"python": python_version()}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that `write_json` wrote."""
    values = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(values, dict)
    return values
