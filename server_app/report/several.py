"""Several runs side by side: a sweep becomes one table and one plot."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from server_app.evidence import files as names
from server_app.report.charts import Bars, points_chart
from server_app.report.load import RunFiles
from server_app.report.page import render, verdict_of
from server_app.report.parts import MOST_ROWS, Figure, Section, Table, both_ends, number, size


def write_side_by_side(directories: Sequence[Path], path: Path) -> Path:
    """Write one page about several runs, and return where it is."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    runs = [RunFiles(directory) for directory in directories]
    labels = labels_of(runs)
    rows = [_row(label, run) for label, run in zip(labels, runs, strict=True)]
    metrics = sorted({row["metric"] for row in rows if row["metric"]})
    sections = [_table(rows)]
    sections += [_plot(metric, [r for r in rows if r["metric"] == metric]) for metric in metrics]
    best = [_best(metric, rows) for metric in metrics]
    text = render(
        title=f"{len(runs)} runs", subtitle="side by side", ended=f"{len(runs)} runs",
        headline=f"{len(runs)} runs", answer=" ".join(best) or "None of them has figures.",
        notes=[], sections=sections,
    )  # fmt: skip
    names.write_text(path, text)
    return path


def labels_of(runs: Sequence[RunFiles]) -> list[str]:
    """Name each run by the overrides that not all of them have, or else by its directory."""
    told = [run.overrides for run in runs]
    common = set.intersection(*(set(overrides) for overrides in told)) if told else set()
    labels = [" ".join(o for o in overrides if o not in common) for overrides in told]
    unique = len(set(labels)) == len(labels)
    return [
        label if label and unique else " ".join(filter(None, (run.directory.name, label)))
        for label, run in zip(labels, runs, strict=True)
    ]


def _row(label: str, run: RunFiles) -> dict[str, Any]:
    """Return a run's figures; those that it does not have are None."""
    lines = run.curves[0] if run.curves else []
    told, metric = run.comparison, run.settings.get("task", {}).get("metric")
    value = run.summary.get("held_out", {}).get(metric)
    interval: Mapping[str, Any] = {"mean": value, "low": None, "high": None}
    if told:
        interval = told["models"]["federated"]
    return {
        "label": label,
        "metric": metric if interval["mean"] is not None else None,
        "interval": interval,
        "rounds": len(lines),
        "bytes": sum(line["bytes_down"] + line["bytes_up"] for line in lines),
        "seconds": sum(line["seconds"] for line in lines),
        "epsilon": run.summary.get("privacy", {}).get("epsilon_most"),
        "verdict": told["decision"] if told else "",
        "says": verdict_of(run)[0],
        "ended": run.outcome["ended"],
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> Section:
    head = ["run", "result", "verdict", "rounds", "bytes", "seconds", "ε", "ended"]
    body = [
        [r["label"], r["says"] if not r["verdict"] else number(r["interval"]["mean"]),
         r["verdict"] or "–", number(r["rounds"]), size(r["bytes"]), f"{r['seconds']:.1f}",
         number(r["epsilon"]), r["ended"]]
        for r in both_ends(rows, MOST_ROWS)
    ]  # fmt: skip
    return Section("All runs", tables=[Table(head, body)])


def _plot(metric: str, rows: Sequence[Mapping[str, Any]]) -> Section:
    shown = both_ends(rows)
    intervals = [row["interval"] for row in shown]
    bars = Bars(metric, *([i[key] for i in intervals] for key in ("mean", "low", "high")))
    title = f"{metric} on held-out rows"
    svg = points_chart(title, [row["label"] for row in shown], bars, metric, zero=False)
    table = Table(
        ["run", metric, "low", "high"],
        [[r["label"], *(number(r["interval"][k]) for k in ("mean", "low", "high"))] for r in shown],
    )
    return Section(title, figures=[Figure(title, svg, table)])


def _best(metric: str, rows: Sequence[Mapping[str, Any]]) -> str:
    from task.objectives import LOWER_IS_BETTER

    mine = [row for row in rows if row["metric"] == metric]
    pick = min if metric in LOWER_IS_BETTER else max
    best = pick(mine, key=lambda row: row["interval"]["mean"])
    return f"Best {metric}: {number(best['interval']['mean'])} with {best['label']}."
