"""What it took: bytes, seconds, privacy, faults; and how to do it again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from conf.comparison import LinkConfig
from server_app.comparison.measured import failures_of
from server_app.report.charts import Bars, Curve, bars_chart, curves_chart
from server_app.report.load import RunFiles
from server_app.report.parts import (
    MOST_ROWS,
    Figure,
    Section,
    Table,
    both_ends,
    number,
    size,
    thinned,
)
from task.worth.cost import Measured, project

Json = Mapping[str, Any]


def communication_section(files: RunFiles) -> Section | None:
    """Return measured bytes, and what they would take on the user's own network."""
    if not files.curves:
        return None
    lines = files.curves[0]
    rounds = [line["round"] for line in lines]
    totals = [
        [value / 1e6 for value in accumulate(line[key] for line in lines)]
        for key in ("bytes_down", "bytes_up")
    ]
    kept = thinned(list(zip(rounds, *totals, strict=True)))
    down, up = ([row[i] for row in kept] for i in (1, 2))
    shown = [row[0] for row in kept]
    title = "Megabytes so far"
    curves = [Curve("to clients", shown, down), Curve("from clients", shown, up)]
    table = Table(
        ["round", "to clients, MB", "from clients, MB"],
        [[number(r), number(d), number(u)] for r, d, u in kept],
    )
    figure = Figure(title, curves_chart(title, curves, {}, "MB"), table)
    text = "Content of the messages, each client counted on its own, however clients share nodes."
    if len(files.curves) > 1:
        text += " Of the first seed."
    seconds = sum(line["seconds"] for line in lines)
    facts = [
        ("sent to clients", size(totals[0][-1] * 1e6)),
        ("sent by clients", size(totals[1][-1] * 1e6)),
        ("seconds of all rounds", number(round(seconds, 2))),
    ]
    return Section("Communication", [text], facts, [figure], _projection(files, lines))


def _projection(files: RunFiles, lines: Sequence[Json]) -> list[Table]:
    """Return the arithmetic from measured bytes to the user's link."""
    measured = measured_of(files, lines)
    if measured is None:
        return []
    told = files.settings.get("link") or {}
    known = {key: told[key] for key in LinkConfig.__dataclass_fields__ if key in told}
    steps = project(measured, LinkConfig(**known))
    rows = [
        [s.name, s.formula, size(s.value) if s.unit == "B" else f"{s.value:,.4g} {s.unit}"]
        for s in steps
    ]
    note = "On your own network: link.up_mbps, link.down_mbps, link.latency_ms, link.clients."
    return [Table(["projection", "arithmetic", ""], rows, note)]


def measured_of(files: RunFiles, lines: Sequence[Json]) -> Measured | None:
    """Return what one client took in one round; None where it is secret, or nobody answered."""
    answered = [len(line["answered"]) for line in lines if line["answered"]]
    if not answered:
        return None
    asked = sum(answered)
    settings = files.settings.get("federation", {})
    processes = settings.get("workers") or os.cpu_count() or 1
    if settings.get("engine") == "remote":
        # Silos compute at the same time.
        processes = asked / len(answered)
    seconds = sum(line["seconds"] for line in lines)
    return Measured(
        rounds=len(lines),
        cohort=asked / len(answered),
        clients=int(files.summary.get("clients") or files.run.get("clients") or max(answered)),
        down=sum(line["bytes_down"] for line in lines) / asked,
        up=sum(line["bytes_up"] for line in lines) / asked,
        seconds=seconds * processes / asked,
    )


def privacy_section(files: RunFiles) -> Section | None:
    """Return what privacy was spent, and what hides single answers; None without either."""
    last = files.curves[0][-1] if files.curves else {}
    spent = files.summary.get("privacy") or last.get("privacy")
    secure = files.summary.get("secure")
    if not spent and not secure:
        text = (
            "This run had neither privacy= nor aggregation=: whoever ran the server saw each "
            "client's update, or the sum of those on one node."
        )
        return Section("Privacy spent", [text]) if files.curves else None
    facts, figures = [], []
    if spent:
        facts = [(key, str(spent[key])) for key in (
            "unit", "epsilon_most", "delta", "relation", "accountant", "assumptions",
        ) if key in spent]  # fmt: skip
        ordered = sorted(spent["epsilon"].items(), key=lambda item: -item[1])
        if ordered:
            shown = both_ends(ordered)
            bars = Bars("ε", [cost for _, cost in shown], *[[None] * len(shown)] * 2)
            title = "ε of each client, all rounds together"
            svg = bars_chart(title, [name for name, _ in shown], [bars], "ε")
            rows = [
                [name, number(cost), number(spent["ledger_epsilon"].get(name))]
                for name, cost in both_ends(ordered, MOST_ROWS)
            ]
            table = Table(["client", "ε of this run", "ε of its ledger"], rows)
            figures.append(Figure(title, svg, table))
    facts += [(key.replace("_", " "), str(value)) for key, value in (secure or {}).items()]
    return Section("Privacy spent", (), facts, figures)


def faults_section(files: RunFiles) -> Section:
    """Return who was left out, and why."""
    failed = failures_of(files.curves)
    refused = files.run.get("refused") or []
    alone = {c: r for seed in files.seeds for c, r in seed.baselines["failed"].items()}
    paragraphs = [f"A node took no part: {reason}" for reason in refused]
    if not files.curves:
        return Section("Faults and exclusions", [*paragraphs, "No round was completed."])
    if not (failed or refused or alone):
        paragraphs.append("None: everybody who was asked gave a valid answer.")
    rows = [[client, reason] for client, reason in both_ends(failed.items(), MOST_ROWS)]
    rows += [[client, f"training alone: {reason}"] for client, reason in alone.items()]
    head = ["client", "left out of rounds"]
    return Section("Faults and exclusions", paragraphs, tables=[Table(head, rows)] if rows else [])


def reproduce_section(files: RunFiles) -> Section:
    """Return configuration and versions, and the command that does it again."""
    command = shlex.join(["uv", "run", "fedproof", *files.overrides])
    versions = files.run.get("versions", {})
    digests = files.summary.get("digests") or files.run.get("digests") or {}
    facts = [
        *((name, str(value)) for name, value in versions.items()),
        *((f"{kind} digest", str(value)[:16]) for kind, value in digests.items()),
    ]
    if started := files.run.get("started"):
        facts.insert(0, ("started", str(started)))
    code = [("All settings", files.config)] if files.config else []
    text = (
        f"{command}" if files.run or files.overrides else "The run left no record of its settings."
    )
    return Section("How to reproduce", [], facts, code=[("Command", text), *code])
