"""Several runs side by side: a sweep becomes one table and one plot."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from server_app.evidence import files as names
from server_app.report.charts import LINES, Bars, points_chart
from server_app.report.load import RunFiles
from server_app.report.page import render, verdict_of
from server_app.report.parts import (
    MOST_ROWS,
    Figure,
    Section,
    Table,
    both_ends,
    duration,
    number,
    size,
)

Row = Mapping[str, Any]
_UNTOLD = "–"
_MOST_LINES = 3
"""Settings that name a run in the plot; of more, its directory does."""


def write_side_by_side(directories: Sequence[Path], path: Path) -> Path:
    """Write one page about several runs, and return where it is."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    runs = [RunFiles(directory) for directory in directories]
    told = differing(runs)
    rows = sorted(
        (_row(run, {key: values[i] for key, values in told.items()}) for i, run in enumerate(runs)),
        key=_place,
    )
    metrics = sorted({row["metric"] for row in rows if row["metric"]})
    sections = [_table(rows, list(told))]
    sections += [_plot(metric, [r for r in rows if r["metric"] == metric]) for metric in metrics]
    best = [_best(metric, rows) for metric in metrics]
    once = any(row["metric"] and row["interval"]["low"] is None for row in rows)
    text = render(
        title=f"{len(runs)} runs", subtitle="side by side", ended=f"{len(runs)} runs",
        headline=f"{len(runs)} runs", answer=" ".join(best) or "None of them has figures.",
        notes=[_ONCE] * once, sections=sections,
    )  # fmt: skip
    names.write_text(path, text)
    return path


_ONCE = (
    "Figures without an interval are of one run under one seed: runs that differ in nothing but "
    "the seed (-m seed=1,2,3) show how far chance moves them, compare=true gives intervals."
)


def differing(runs: Sequence[RunFiles]) -> dict[str, list[str]]:
    """Return the settings that were told to any of the runs and differ, with each run's value.

    What a run was not told is its default, so that saying it makes no difference.
    """
    keys = dict.fromkeys(key for run in runs for key, _ in _told(run))
    values = {key: [_value(run, key) for run in runs] for key in keys}
    return {key: found for key, found in values.items() if len(set(found)) > 1}


def _told(run: RunFiles) -> Iterator[tuple[str, str]]:
    for override in run.overrides:
        key, _, value = override.lstrip("+~").partition("=")
        yield key, value


def _value(run: RunFiles, key: str) -> str:
    found: Any = run.settings
    for part in key.split("."):
        found = found.get(part, _UNTOLD) if isinstance(found, Mapping) else _UNTOLD
    if isinstance(found, Mapping):
        found = found.get("name", _UNTOLD)
    if found == _UNTOLD:
        # Such as experiment=, or a run that never wrote its settings.
        return dict(_told(run)).get(key, _UNTOLD)
    return str(found).lower() if isinstance(found, bool) else str(found or _UNTOLD)


def _row(run: RunFiles, differs: Mapping[str, str]) -> dict[str, Any]:
    """Return a run's figures; those that it does not have are None."""
    lines = run.curves[0] if run.curves else []
    told, metric = run.comparison, run.settings.get("task", {}).get("metric")
    value = run.summary.get("held_out", {}).get(metric)
    interval: Mapping[str, Any] = {"mean": value, "low": None, "high": None}
    if told:
        interval = told["models"]["federated"]
    return {
        "run": run.directory.name,
        "settings": list(differs.values()),
        "label": " ".join(f"{k}={v}" for k, v in differs.items()) or run.directory.name,
        "metric": metric if interval["mean"] is not None else None,
        "interval": interval,
        "rounds": len(lines),
        "bytes": sum(line["bytes_down"] + line["bytes_up"] for line in lines),
        "seconds": sum(line["seconds"] for line in lines),
        "epsilon": run.summary.get("privacy", {}).get("epsilon_most"),
        "verdict": told["decision"] if told else _UNTOLD,
        "says": verdict_of(run)[0],
        "ended": run.outcome["ended"],
    }


def _place(row: Row) -> tuple[bool, str, float]:
    """Return a key that sorts runs with figures first, by metric, the best ahead."""
    from task.objectives import LOWER_IS_BETTER

    if row["metric"] is None:
        return True, "", 0.0
    sign = 1 if row["metric"] in LOWER_IS_BETTER else -1
    return False, row["metric"], sign * row["interval"]["mean"]


def _table(rows: Sequence[Row], keys: Sequence[str]) -> Section:
    head = ["run", *keys, "held-out rows", "rounds", "bytes", "time", "ended"]
    more = {
        "low": [number(r["interval"]["low"]) for r in rows],
        "high": [number(r["interval"]["high"]) for r in rows],
        "verdict": [r["verdict"] for r in rows],
        "ε": [number(r["epsilon"]) for r in rows],
    }
    # Columns that no run has anything in are left out.
    more = {name: values for name, values in more.items() if set(values) != {_UNTOLD}}
    body = [
        [r["run"], *r["settings"],
         f"{r['metric']} {number(r['interval']['mean'])}" if r["metric"] else r["says"],
         number(r["rounds"]), size(r["bytes"]), duration(r["seconds"]), r["ended"],
         *(values[i] for values in more.values())]
        for i, r in enumerate(rows)
    ]  # fmt: skip
    text = "The best first, with the settings in which they differ."
    return Section("All runs", [text], tables=[Table([*head, *more], both_ends(body, MOST_ROWS))])


def _plot(metric: str, rows: Sequence[Row]) -> Section:
    shown = both_ends(rows)
    intervals = [row["interval"] for row in shown]
    bars = Bars(metric, *([i[key] for i in intervals] for key in ("mean", "low", "high")))
    title = f"{metric} on held-out rows"
    few = 0 < len(shown[0]["settings"]) <= _MOST_LINES
    labels = [LINES.join(row["settings"]) if few else row["run"] for row in shown]
    svg = points_chart(title, labels, bars, metric, zero=False)
    table = Table(
        ["run", metric, "low", "high"],
        [[r["label"], *(number(r["interval"][k]) for k in ("mean", "low", "high"))] for r in shown],
    )
    note = f"Of {len(rows)} runs, the best and the worst." if len(shown) < len(rows) else ""
    return Section("In one picture", figures=[Figure(title, svg, table, note)])


def _best(metric: str, rows: Sequence[Row]) -> str:
    best = next(row for row in rows if row["metric"] == metric)
    return f"Best {metric}: {number(best['interval']['mean'])} with {best['label']}."
