"""Many runs in one process, and one table: ``experiment=poisoning``, ``experiment=heterogeneity``.

Every cell is a run like any other, with a directory of its own below ``cells``. A cell that is
there already, with the same settings and code, is not run again.
"""

from __future__ import annotations

import itertools
import logging
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from conf.compose import compose, quote
from conf.digest import code_digest, config_digest
from conf.errors import FedproofError
from conf.schema import Engine, Settings
from server_app.evidence import files
from server_app.evidence.events import watching
from server_app.evidence.matrix_views import show, write_csv, write_heat_map
from task.robust.anomaly import SUSPICIOUS

APP_DIR = Path(__file__).resolve().parent.parent
TABLE = "matrix.json"


@dataclass(frozen=True)
class Cell:
    """What one run came to.

    Attributes
    ----------
    page, row, column : str
        What was varied.
    score : float or None
        The task's metric on held-out rows; None if the run did not finish.
    backdoor : float or None
        Share of triggered rows that the model reads as the attackers want.
    caught, hurt : float or None
        Share of the attackers, and of the honest clients, whose answers did not count, mean over
        rounds; None without attackers.
    flagged, suspected : float or None
        Likewise, whose anomaly score is suspicious; None where single updates were not seen.
    seconds : float
        Of this run.
    failure : str
        Why it did not finish.
    """

    page: str
    row: str
    column: str
    score: float | None = None
    backdoor: float | None = None
    caught: float | None = None
    hurt: float | None = None
    flagged: float | None = None
    suspected: float | None = None
    seconds: float = 0.0
    failure: str = ""


def run_matrix(settings: Settings, overrides: Sequence[str], run_dir: Path) -> None:
    """Run all cells; write table, csv and heat map.

    Raises
    ------
    FedproofError
        If the settings of some cell are wrong, or the engine is not local.
    """
    if settings.federation.engine is not Engine.local:
        raise FedproofError("a matrix of runs needs federation=local.")
    matrix = settings.matrix
    axes = [
        (key, values if key else [""])
        for key, values in (
            (matrix.page, matrix.pages), (matrix.row, matrix.rows), (matrix.column, matrix.columns)
        )
    ]  # fmt: skip
    places = list(itertools.product(*(values for _, values in axes)))
    told = {
        place: [*overrides, "matrix.rows=[]", *_choices([key for key, _ in axes], place)]
        for place in places
    }
    for place, cell_overrides in told.items():
        # Each value of each axis once: composing all cells would take longer than some run.
        if sum(part != first for part, first in zip(place, places[0], strict=True)) <= 1:
            compose(tuple(cell_overrides))
    cells = []
    for number, place in enumerate(places, 1):
        directory = run_dir.resolve() / "cells" / Path(*(_name(part) for part in place if part))
        cells.append(_run(place, told[place], directory))
        print(f"{number}/{len(places)} {_sentence(cells[-1])}", flush=True)
    _record(settings, cells, run_dir)


def _choices(keys: Sequence[str | None], place: Sequence[str]) -> list[str]:
    chosen = []
    for key, value in zip(keys, place, strict=True):
        if key:
            chosen += overrides_of(key, value)
    return chosen


def overrides_of(key: str, value: str) -> list[str]:
    """Return the overrides of one value on an axis."""
    first, *more = value.split()
    *defences, plain = first.split("+") if key == "strategy" else [first]
    chosen = [f"{key}={plain}"]
    if defences:
        chosen.append(f"defence={defences[0]}")
    if defences[1:]:
        chosen.append(f"defence.then=[{','.join(defences[1:])}]")
    return [*chosen, *more]


def _name(value: str) -> str:
    return re.sub(r"[^0-9A-Za-z_.+=-]", "_", value)


def _run(place: tuple[str, ...], overrides: list[str], directory: Path) -> Cell:
    from server_app.engines.local import run_local

    # Importing Flower sets this.
    logging.getLogger("flwr").setLevel(logging.ERROR)
    settings = compose(tuple(overrides))
    page, row, column = place
    started = time.monotonic()
    if not _done(settings, directory):
        told = [*overrides, f"run_dir={quote(directory)}"]
        if settings.task.path:
            told.append(f"task.path={quote(Path(settings.task.path).expanduser().resolve())}")
        try:
            with watching(lambda event: None):
                run_local(settings, told, str(APP_DIR))
        except FedproofError as error:
            return Cell(page, row, column, seconds=_since(started), failure=str(error))
    summary = files.read_json(directory / files.SUMMARY)
    run = files.read_json(directory / files.RUN)
    lines = files.read_lines(directory / files.METRICS)
    cell = Cell(
        page,
        row,
        column,
        score=summary["held_out"].get(settings.task.metric),
        backdoor=lines[-1].get("backdoor_success"),
        seconds=_since(started),
        failure="" if summary["held_out"] else "it was not evaluated",
    )
    return replace(cell, **shares(lines, set(run["attackers"])))  # type: ignore[arg-type]


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)


def _done(settings: Settings, directory: Path) -> bool:
    """Tell whether a run of these settings has finished there."""
    try:
        digests = files.read_json(directory / files.SUMMARY)["digests"]
    except (OSError, ValueError, KeyError):
        return False
    finished = len(files.read_lines(directory / files.METRICS)) == settings.rounds
    same = {"config": config_digest(settings), "code": code_digest()}
    return finished and bool(digests == same)


def shares(lines: Iterable[dict[str, Any]], attackers: set[str]) -> dict[str, float | None]:
    """Return who was caught, hurt, flagged and suspected (`Cell`), mean over rounds."""
    found: dict[str, list[float]] = {"caught": [], "hurt": [], "flagged": [], "suspected": []}
    for line in lines if attackers else ():
        sampled = set(line["sampled"])
        out = set(line["failed"]) | set(line.get("defence", {}).get("excluded", []))
        scores = line.get("anomaly", {})
        odd = {client for client, score in scores.items() if score > SUSPICIOUS}
        odd |= set(line["failed"])
        sides = (
            ("caught", "flagged", sampled & attackers),
            ("hurt", "suspected", sampled - attackers),
        )
        for excluded, anomalous, side in sides:
            if side:
                found[excluded].append(len(out & side) / len(side))
                if scores:
                    found[anomalous].append(len(odd & side) / len(side))
    return {name: sum(values) / len(values) if values else None for name, values in found.items()}


def _sentence(cell: Cell) -> str:
    where = " · ".join(part for part in (cell.page, cell.row, cell.column) if part)
    if cell.score is None:
        return f"{where}: {cell.failure}"
    return f"{where}: {cell.score:.4f} ({cell.seconds:.1f} s)"


def _record(settings: Settings, cells: list[Cell], run_dir: Path) -> None:
    matrix = settings.matrix
    rows = [asdict(cell) for cell in cells]
    told: dict[str, Any] = {
        "metric": settings.task.metric,
        "axes": {"page": matrix.page, "row": matrix.row, "column": matrix.column},
        "rounds": settings.rounds,
        "seed": settings.seed,
        "versions": files.versions(),
        "cells": rows,
    }
    files.write_json(run_dir / TABLE, told)
    write_csv(run_dir / "matrix.csv", rows)
    write_heat_map(run_dir / "matrix.png", told)
    show(told)
    print(f"run directory: {run_dir}")
