"""What was reached: verdict, learning curves, clients, and how unlike they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from server_app.comparison.show import MODELS
from server_app.report.charts import Bars, Curve, bars_chart, curves_chart, points_chart
from server_app.report.load import RunFiles
from server_app.report.parts import (
    MOST_ROWS,
    Figure,
    Section,
    Table,
    both_ends,
    duration,
    gained,
    left_out,
    number,
    ranked,
    spread,
    thinned,
)
from task.objectives import SHARES

Json = Mapping[str, Any]


def comparison_section(told: Json, files: RunFiles) -> Section:
    """Return what the verdict rests on."""
    rows = []
    for name, value in told["models"].items():
        fair = told["fairness"][name]
        rows.append(
            [MODELS[name], spread(value), number(told["pooled"].get(name)), *(
                number(fair[key]) for key in ("worst", "worst_decile", "variance", "gini")
            )]
        )  # fmt: skip
    metric = told["metric"]
    head = ["model", f"{metric}, mean of clients", "all held-out rows", "worst client",
            "worst tenth", "variance", "Gini"]  # fmt: skip
    differences = (
        ("gain over training alone", told["gain"]),
        ("centralised over federated", told["central_over_federated"]),
        ("price of privacy", told["price_of_privacy"]),
    )
    both = " and centralised" if "central" in told["models"] else ""
    facts = [
        *((k, f"{gained(v, metric)} of {metric}") for k, v in differences if v),
        ("seeds", number(told["seeds"])),
        ("rounds that each client trained alone", number(told["local_rounds"])),
        (f"gradient steps, federated{both}", number(told["federated_steps"])),
        *((f"time, {MODELS[name]}", duration(s)) for name, s in told["seconds"].items()),
    ]
    paragraphs = ["Intervals are 95 % bootstrap intervals over seeds and clients."]
    if told["lower_is_better"]:
        paragraphs.append(f"{metric} improves downwards; gains are given as improvements.")
    if "central" not in told["models"]:
        remote = files.settings.get("federation", {}).get("engine") == "remote"
        why = "they never left their clients" if remote else "baselines.centralised=false"
        paragraphs.append(f"No model was trained on everybody's rows: {why}.")
    note = "Variance and Gini coefficient are 0 where all clients fare alike."
    return Section("What it rests on", paragraphs, facts, tables=[Table(head, rows, note)])


def curves_section(files: RunFiles) -> Section | None:
    """Return training and held-out figures over the rounds; None before the first round."""
    if not files.curves:
        return None
    metric = files.settings.get("task", {}).get("metric", "accuracy")
    held_out = [_curve(lines, "mean", metric, "held_out") for lines in files.curves]
    loss = [_curve(lines, "train", "loss") for lines in files.curves]
    curves = [c for c in (_joined("federated", held_out), _alone(files)) if c is not None]
    figures = []
    if curves and curves[0].name == "federated":
        levels = {}
        if files.comparison and files.comparison["models"].get("central"):
            levels["centralised"] = files.comparison["models"]["central"]["mean"]
        figures.append(_curves_figure(f"{metric} on held-out rows", curves, levels, metric))
    joined = _joined("training loss", loss)
    if joined is not None:
        figures.append(_curves_figure("Training loss", [joined], {}, "loss"))
    several = f" The band spans {len(files.curves)} seeds." if len(files.curves) > 1 else ""
    text = f"Held-out figures are means over clients, where clients tell theirs.{several}"
    return Section("Learning curves", [text], figures=figures)


def _curves_figure(
    title: str, curves: Sequence[Curve], levels: Mapping[str, float], unit: str
) -> Figure:
    rounds = sorted({r for curve in curves for r in curve.rounds})
    values = [dict(zip(curve.rounds, curve.values, strict=True)) for curve in curves]
    rows = [[f"{r:.0f}", *(number(v.get(r)) for v in values)] for r in thinned(rounds)]
    rows += [[name, number(value)] for name, value in levels.items()]
    head = ["round", *(curve.name for curve in curves)]
    return Figure(title, curves_chart(title, curves, levels, unit), Table(head, rows))


def _curve(lines: Sequence[Json], group: str, key: str, other: str = "") -> dict[int, float]:
    """Return a figure by round, from one group of a line or else from another."""
    found = {line["round"]: line.get(group, {}).get(key) for line in lines}
    if other and not any(value is not None for value in found.values()):
        found = {line["round"]: line.get(other, {}).get(key) for line in lines}
    return {r: v for r, v in found.items() if isinstance(v, int | float)}


def _joined(name: str, runs: Sequence[Mapping[int, float]]) -> Curve | None:
    """Return the mean of several runs over the rounds that all of them have."""
    runs = [run for run in runs if run]
    if not runs:
        return None
    rounds = thinned(sorted(set.intersection(*(set(run) for run in runs))))
    if not rounds:
        return None
    values = np.array([[run[r] for r in rounds] for run in runs])
    if len(runs) == 1:
        return Curve(name, rounds, values[0].tolist())
    return Curve(
        name, rounds, values.mean(0).tolist(), values.min(0).tolist(), values.max(0).tolist()
    )


def _alone(files: RunFiles) -> Curve | None:
    """Return how clients did alone, on average over those who know it in every round."""
    runs = []
    for seed in files.seeds:
        told = [c["curve"] for c in seed.baselines["clients"].values() if c["curve"]]
        if told:
            runs.append(dict(enumerate(np.mean(told, axis=0).tolist(), 1)))
    return _joined("alone", runs)


def clients_section(files: RunFiles) -> Section | None:
    """Return each client's figures; None if clients told none."""
    if files.comparison:
        return _compared_clients(files.comparison)
    metric = files.settings.get("task", {}).get("metric", "accuracy")
    rows = [row for row in files.clients if metric in row]
    if not rows:
        return None
    ordered = sorted(rows, key=lambda row: row[metric])
    keys = sorted({key for row in rows for key in row} - {"round", "client", "num-examples"})
    table = Table(
        ["client", "held-out rows", *keys],
        [
            [str(r["client"]), number(r["num-examples"]), *(number(r.get(k)) for k in keys)]
            for r in both_ends(ordered, MOST_ROWS)
        ],
    )
    values = [(str(row["client"]), row[metric]) for row in ordered]
    figure = ranked(f"{metric} of each client", metric, values, table)
    text = "On each client's own held-out rows, lowest first."
    return Section("Clients", [text], figures=[figure])


def _compared_clients(told: Json) -> Section:
    metric = told["metric"]
    clients = sorted(
        (c for c in told["clients"] if c["gain"] is not None), key=lambda c: -c["gain"]["mean"]
    )
    shown = both_ends(clients)
    names = [c["client"] for c in shown]
    kinds = [k for k in ("federated", "local", "central") if any(c[k] for c in clients)]
    head = ["client", "training rows", "held-out rows", *(MODELS[k] for k in kinds), "gain",
            "verdict"]  # fmt: skip
    table = Table(
        head,
        [
            [c["client"], number(c["train"]), number(c["test"]), *(spread(c[k]) for k in kinds),
             gained(c["gain"], metric),
             "; ".join(filter(None, (c["effect"], c["warning"])))]
            for c in both_ends(clients, MOST_ROWS)
        ],
    )  # fmt: skip
    title, gains = f"{metric} of each client", "Gain of federation over training alone"
    bars = [_bars(MODELS[kind], [c[kind] for c in shown]) for kind in kinds]
    note = left_out(len(clients))
    if not told["named"]:
        note += " Each seed deals the rows anew: a client is a place, not always the same rows."
    scale, unit = (100, f"points of {metric}") if metric in SHARES else (1, metric)
    points = _bars("gain", [c["gain"] for c in shown], scale)
    alone = Table(
        ["client", "gain", "verdict"],
        [
            [c["client"], gained(c["gain"], metric), c["effect"]]
            for c in both_ends(clients, MOST_ROWS)
        ],
    )
    return Section(
        "Clients",
        [
            "Ordered by what they gain, most first. Whiskers are 95 % intervals over the seeds; "
            "those of gains are widened so that all of them hold together."
        ],
        figures=[
            Figure(title, bars_chart(title, names, bars, metric), table, note),
            Figure(gains, points_chart(gains, names, points, unit), alone, note),
        ],
    )


def _bars(name: str, values: Sequence[Json | None], scale: float = 1) -> Bars:
    def each(key: str) -> list[float | None]:
        found = [None if value is None else value[key] for value in values]
        return [None if value is None else scale * value for value in found]

    return Bars(name, each("mean"), each("low"), each("high"))


_LIKENESS = {
    "label_divergence": (
        "Label divergence", "Jensen-Shannon divergence from everybody's labels, bits"
    ),
    "feature_shift": ("Feature shift", "standard deviations from everybody's features"),
    "alignment": ("Agreement of updates", "cosine of own and federated change of the model"),
}  # fmt: skip


def heterogeneity_section(files: RunFiles) -> Section | None:
    """Return how unlike clients are, as far as it was measured."""
    figures = []
    for kind, (title, unit) in _LIKENESS.items():
        values = _likeness(files, kind)
        if values:
            ordered = sorted(values.items(), key=lambda item: item[1])
            rows = [[name, number(v)] for name, v in both_ends(ordered, MOST_ROWS)]
            figures.append(ranked(title, unit, ordered, Table(["client", unit], rows)))
    if not figures:
        return None
    text = (
        "A client like all others has a divergence and a shift of 0, and a cosine of 1. Rows are "
        "looked at in simulations only; of deployed clients no more than the cosine is known."
    )
    return Section("How unlike clients are", [text], figures=figures)


def _likeness(files: RunFiles, kind: str) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for seed in files.seeds:
        # Of clients on other machines nobody sees rows.
        told = (
            seed.baselines["clients"] if kind == "alignment" else seed.baselines.get("likeness", {})
        )
        for client, values in told.items():
            if kind in values:
                found.setdefault(client, []).append(values[kind])
    return {client: float(np.mean(values)) for client, values in found.items()}
