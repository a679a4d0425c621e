"""What it took: bytes, seconds, privacy, faults; and how to do it again."""

from __future__ import annotations

import math
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from conf.comparison import LinkConfig
from server_app.comparison.measured import failures_of
from server_app.report.charts import Curve, curves_chart
from server_app.report.load import RunFiles
from server_app.report.parts import (
    MOST_ROWS,
    Figure,
    Section,
    Table,
    both_ends,
    duration,
    number,
    ranked,
    size,
    thinned,
)
from task.worth.cost import Measured, Step, project

Json = Mapping[str, Any]
_TELLS = 10.0
"""An ε from which on e^ε says nothing."""


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
        ("time of all rounds", duration(seconds)),
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
    rows = [[s.name, s.formula, _amount(s)] for s in steps]
    note = "On your own network: link.up_mbps, link.down_mbps, link.latency_ms, link.clients."
    return [Table(["projection", "arithmetic", ""], rows, note)]


def _amount(step: Step) -> str:
    if step.unit == "B":
        return size(step.value)
    if step.unit == "s":
        return duration(step.value)
    return f"{step.value:,.1f}".removesuffix(".0") + f" {step.unit}"


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
            "client's update, or the sum of those on one node, which may tell about the rows "
            "behind it."
        )
        return Section("Privacy spent", [text, *_evaluation(files)]) if files.curves else None
    facts: list[tuple[str, str]] = []
    paragraphs, figures = [], []
    if spent:
        paragraphs = [_meaning(spent)]
        facts = [(name, str(spent[key])) for key, name in _SPENT.items() if key in spent]
        figures = _epsilons(spent)
    facts += [(key.replace("_", " "), str(value)) for key, value in (secure or {}).items()]
    return Section("Privacy spent", [*paragraphs, *_evaluation(files)], facts, figures)


def _evaluation(files: RunFiles) -> list[str]:
    """Return which kind of evaluation it was, and what it cost."""
    told = files.summary.get("evaluation")
    if not told:
        return []
    kind = "none" if told["kind"] == "none" else f"privacy.evaluation={told['kind']}"
    cost = ""
    if "epsilon" in told:
        count, cost = told["evaluations"], f"; {number(told['epsilon'])} of ε taken alone"
        cost = f"; evaluations of a client: {count}{cost}"
    return [f"Evaluation ({kind}): {told['says']}{cost}."]


_SPENT = {
    "unit": "what is protected: each", "epsilon_most": "ε at most", "delta": "δ",
    "relation": "neighbouring data sets", "accountant": "accountant", "assumptions": "assumptions",
}  # fmt: skip


def _meaning(spent: Json) -> str:
    """Return what ε says, for those who do not know."""
    epsilon = float(spent["epsilon_most"])
    times = f" = {math.exp(epsilon):,.3g} times" if epsilon < _TELLS else ""
    return (
        f"Whatever the models show, one {spent['unit']} makes it at most e^ε{times} as likely, "
        "apart from a probability of δ: the smaller ε is, the less can be learnt of it."
    )


def _epsilons(spent: Json) -> list[Figure]:
    ordered = sorted(spent["epsilon"].items(), key=lambda item: -item[1])
    if not ordered:
        return []
    rows = [
        [name, number(cost), number(spent["ledger_epsilon"].get(name))]
        for name, cost in both_ends(ordered, MOST_ROWS)
    ]
    table = Table(["client", "ε of this run", "ε of its ledger"], rows)
    return [ranked("ε of each client, all rounds together", "ε", ordered, table)]


def faults_section(files: RunFiles) -> Section:
    """Return who was left out, and why."""
    failed = failures_of(files.curves)
    refused = files.run.get("refused") or []
    alone = {c: r for seed in files.seeds for c, r in seed.baselines["failed"].items()}
    paragraphs = [f"A node took no part: {reason}" for reason in refused]
    if not files.curves:
        return Section("Faults and exclusions", [*paragraphs, "No round was completed."])
    weakened = _weakened(files)
    if any(line.get("secret") for lines in files.curves for line in lines):
        paragraphs.append("Who was drawn, and who of them failed, is secret: it is not recorded.")
    elif not (failed or refused or alone):
        also = ", though not all counted in full" if weakened else ""
        paragraphs.append(f"Everybody who was asked gave a valid answer{also}.")
    rows = [[client, reason] for client, reason in both_ends(failed.items(), MOST_ROWS)]
    rows += [[client, f"training alone: {reason}"] for client, reason in alone.items()]
    tables = [
        Table(head, body)
        for head, body in (
            (["client", "left out of rounds"], rows),
            (["client", "its valid answers", "rounds", "anomaly score, at most"], weakened),
        )
        if body
    ]
    return Section("Faults and exclusions", paragraphs, tables=tables)


_DONE = {
    "excluded": "did not count", "clipped": "were shortened",
    "capped": "counted for less",
}  # fmt: skip


def _weakened(files: RunFiles) -> list[list[str]]:
    """Return whose answers the strategy or a defence left out or weakened, how often, and why."""
    times: Counter[tuple[str, str]] = Counter()
    scores: dict[str, float] = {}
    lines = [line for lines in files.curves for line in lines if line.get("defence") is not None]
    for line in lines:
        times.update((c, what) for what, clients in line["defence"].items() for c in clients)
        for client, score in line.get("anomaly", {}).items():
            scores[client] = max(score, scores.get(client, score))
    rows = [
        [client, _DONE.get(what, what), f"{count} of {len(lines)}", number(scores.get(client))]
        for (client, what), count in times.most_common()
    ]
    return both_ends(rows, MOST_ROWS)


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
