"""Read the runs of a comparison back into evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from server_app.comparison.runner import UNPROTECTED
from server_app.evidence import files
from task.worth.bootstrap import Values
from task.worth.evidence import Evidence, least_gain
from task.worth.verdict import still_improving

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Compared:
    """One finished seed: ``baselines.json`` and the run's lines."""

    directory: Path
    baselines: dict[str, Any]
    lines: list[dict[str, Any]]
    unprotected: dict[str, float]


def seed_directories(run_dir: Path) -> list[Path]:
    """Return the directories of a comparison's seeds in order, or the one run's own."""
    found = sorted(run_dir.glob("seed-*"), key=lambda d: (len(d.name), d.name))
    return [d for d in found if not d.name.endswith(UNPROTECTED)] or [run_dir]


def read_seeds(run_dir: Path) -> list[Compared]:
    """Return the finished seeds of a comparison, or the one run if the directory is one."""
    found = []
    for directory in seed_directories(run_dir):
        if (directory / files.BASELINES).is_file():
            bare = directory.with_name(directory.name + UNPROTECTED)
            baselines = files.read_json(directory / files.BASELINES)
            found.append(
                Compared(
                    directory, baselines, files.read_lines(directory / files.METRICS),
                    _last_figures(bare, baselines["metric"]),
                )
            )  # fmt: skip
    return found


def evidence_of(seeds: Sequence[Compared]) -> Evidence:
    """Return what some finished seeds, at least one, measured."""
    first = seeds[0].baselines
    metric, lower = first["metric"], first["lower_is_better"]
    names = tuple(sorted({name for seed in seeds for name in seed.baselines["clients"]}))
    rows = np.array([[_rows(seeds, name, kind) for name in names] for kind in ("train", "test")])

    def figures(kind: str) -> Values:
        return _matrix(seeds, names, lambda told: told.get(kind, {}).get(metric))

    central = figures("central")
    alignment = _matrix(seeds, names, lambda told: told["alignment"])
    bare = np.array([[seed.unprotected.get(name, np.nan) for name in names] for seed in seeds])
    return Evidence(
        metric=metric,
        clients=names,
        federated=figures("federated"),
        local=figures("local"),
        train_rows=rows[0],
        test_rows=rows[1],
        central=None if np.isnan(central).all() else central,
        unprotected=None if np.isnan(bare).all() else bare,
        alignment=alignment,
        lower_is_better=lower,
        named=first["named"],
        divergence=mean_likeness(seeds, "label_divergence"),
        improving=_improving(seeds),
        failures=failures_of([seed.lines for seed in seeds]),
    )


def mean_likeness(seeds: Sequence[Compared], kind: str) -> float | None:
    """Return the mean over seeds and clients of one measure of how unlike clients are."""
    values = [
        told[kind]
        for seed in seeds
        for told in seed.baselines.get("likeness", {}).values()
        if kind in told
    ]
    return float(np.mean(values)) if values else None


def failures_of(runs: Sequence[Sequence[Json]]) -> dict[str, str]:
    """Return the clients that were left out of rounds, how often, and the last reason."""
    times: Counter[str] = Counter()
    why: dict[str, str] = {}
    rounds = sum(len(lines) for lines in runs)
    for line in (line for lines in runs for line in lines):
        for client, reason in {**line["failed"], **line.get("evaluation_failed", {})}.items():
            times[client] += 1
            why[client] = reason
    return {c: f"{times[c]} of {rounds}: {why[c].rstrip('.')}" for c in sorted(times)}


def _matrix(
    seeds: Sequence[Compared], names: Sequence[str], value: Callable[[Json], float | None]
) -> Values:
    """Return values by seed and client, NaN where there is none."""
    result = np.full((len(seeds), len(names)), np.nan)
    for i, seed in enumerate(seeds):
        for j, name in enumerate(names):
            told = seed.baselines["clients"].get(name)
            found = None if told is None else value(told)
            if found is not None:
                result[i, j] = found
    return result


def _rows(seeds: Sequence[Compared], name: str, kind: str) -> float:
    """Return a client's fewest rows under any seed."""
    return float(
        min(s.baselines["clients"][name][kind] for s in seeds if name in s.baselines["clients"])
    )


def _improving(seeds: Sequence[Compared]) -> float:
    metric, lower = (seeds[0].baselines[key] for key in ("metric", "lower_is_better"))
    told = [client for seed in seeds for client in seed.baselines["clients"].values()]
    ends = [client["curve"][-1] for client in told if client["curve"]]
    margin = least_gain(metric, np.array(ends or [1.0]))
    return float(
        np.mean([still_improving(c["curve"], margin, lower_is_better=lower) for c in told])
    )


def _last_figures(directory: Path, metric: str) -> dict[str, float]:
    """Return every client's figure at a run's last evaluation; empty if there is no such run."""
    rows = files.read_lines(directory / files.CLIENTS)
    last = max((row["round"] for row in rows), default=0)
    return {row["client"]: row[metric] for row in rows if row["round"] == last and metric in row}
