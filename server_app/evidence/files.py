"""The files of a run directory: whole or not at all, and readable after a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from conf.errors import FedproofError
from conf.seal import sealed, sealed_line, unsealed, unsealed_line
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
    """Replace a JSON file atomically; it holds its own digest."""
    write_text(path, json.dumps(sealed(values), indent=2) + "\n")


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append JSON lines with one durable write, so that a crash tears at most the last line."""
    text = "".join(sealed_line(row) + "\n" for row in rows)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a last line that was not written to its end is left out.

    Raises
    ------
    FedproofError
        If another line is not what was written.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(unsealed_line(line.decode("utf-8")))
        except (ValueError, RecursionError):
            if number == len(lines):
                # What follows the last line's end is nothing, or torn.
                break
            raise FedproofError(
                f"{path} is damaged: line {number} is not what was written; put back the file, or "
                "cut it off before that line."
            ) from None
    return rows


def keep_rounds(path: Path, rounds: int) -> None:
    """Drop the lines of rounds after `rounds`: a resumed run does them again."""
    if path.exists():
        rows = [row for row in read_lines(path) if row["round"] <= rounds]
        write_text(path, "".join(sealed_line(row) + "\n" for row in rows))


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    names = ("fedproof", "flwr", "torch", "numpy")
    return {name: version(name) for name in names} | {"python": python_version()}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that `write_json` wrote.

    Raises
    ------
    FedproofError
        If it is damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(values, dict)
    except (ValueError, AssertionError, RecursionError):
        raise FedproofError(
            f"{path} is damaged: it is not what was written; use another run."
        ) from None
    return unsealed(values, str(path))
