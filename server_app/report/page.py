"""Put a report together and write it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from server_app.evidence import files as names
from server_app.report.ending import CRASHED, FAILED, FINISHED, INTERRUPTED
from server_app.report.load import RunFiles
from server_app.report.parts import Section, number
from server_app.report.results import (
    clients_section,
    comparison_section,
    curves_section,
    heterogeneity_section,
)
from server_app.report.spent import (
    communication_section,
    faults_section,
    privacy_section,
    reproduce_section,
)

TEMPLATE = "page.html"
_MOST_ODD = 6
"""Clients that are named at the top."""
_ENDED = {
    FINISHED: "finished", FAILED: "failed", INTERRUPTED: "interrupted", CRASHED: "crashed",
    "unknown": "unfinished",
}  # fmt: skip


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` from what a run directory holds, and return where it is."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    path = run_dir / names.REPORT
    names.write_text(path, page(RunFiles(run_dir)))
    return path


def page(files: RunFiles) -> str:
    """Return the page of one run, or of one comparison."""
    headline, answer, notes = verdict_of(files)
    told = files.comparison
    sections = [
        comparison_section(told, files) if told else None,
        curves_section(files),
        clients_section(files),
        heterogeneity_section(files),
        communication_section(files),
        privacy_section(files),
        faults_section(files),
        reproduce_section(files),
    ]
    task = files.settings.get("task", {}).get("name") or files.summary.get("task") or "fedproof"
    return render(
        title=f"{task}: {headline}",
        subtitle=_subtitle(files),
        ended=_ENDED.get(files.outcome["ended"], "unfinished"),
        headline=headline,
        answer=answer,
        notes=notes,
        sections=[section for section in sections if section is not None],
    )


def verdict_of(files: RunFiles) -> tuple[str, str, list[str]]:
    """Return the page's headline, the sentence below it, and what a reader must know besides."""
    ended, sentence = files.outcome["ended"], files.outcome.get("sentence", "")
    done = max((line["round"] for lines in files.curves for line in lines), default=0)
    notes = _how_it_ended(ended, sentence, done, files) + _attacked(files.settings)
    if files.comparison:
        told = files.comparison
        answer = told["sentence"].removeprefix(f"{told['decision']}: ")
        return _capital(told["decision"]), _capital(answer), [*notes, *_odd(told)]
    if not files.curves:
        return "Nothing was trained", "There are no figures, because no round was done.", notes
    metric = files.settings.get("task", {}).get("metric", "accuracy")
    evaluated = [line for line in files.curves[0] if "held_out" in line]
    if files.summary:
        round_, held_out = files.summary["evaluated_round"], files.summary["held_out"]
    elif evaluated:
        round_, held_out = evaluated[-1]["round"], evaluated[-1]["held_out"]
    else:
        round_, held_out = 0, {}
    if not held_out:
        return f"{done} rounds, not evaluated", _unevaluated(files), notes
    others = ", ".join(f"{k} {number(v)}" for k, v in sorted(held_out.items()) if k != metric)
    notes.append(_once(files.settings))
    return (
        f"{metric} {number(held_out.get(metric))}",
        f"On all clients' held-out rows after round {round_}{_noised(files, round_, metric)}"
        f"{_range(files, metric)}. Other figures: {others}.",
        notes,
    )


def _unevaluated(files: RunFiles) -> str:
    """Return that there are no held-out figures, and why."""
    reasons = [why for line in files.curves[0] for why in line.get("evaluation_abandoned", [])]
    return " ".join(["Nothing was evaluated on held-out rows.", *(f"{r}." for r in reasons[-1:])])


def _noised(files: RunFiles, round_: int, metric: str) -> str:
    """Return how far off the noise lets a figure be, where sums have some."""
    line = next((line for line in files.curves[0] if line["round"] == round_), {})
    if line.get("evaluation") != "noised":
        return ""
    error = line["standard_error"].get(metric)
    known = "" if error is None else f" of standard error {number(error)}"
    return f", from sums with noise{known}"


def _range(files: RunFiles, metric: str) -> str:
    """Return between which figures the clients are, if they told theirs."""
    values = [row[metric] for row in files.clients if metric in row]
    if len(values) < 2:
        return ""
    return f"; single clients have {number(min(values))} to {number(max(values))}"


def _once(settings: Mapping[str, Any]) -> str:
    """Return what a single run leaves open, and the mend where there is one."""

    def chosen(group: str) -> str:
        return str(settings.get(group, {}).get("name", "none"))

    mend = "Add compare=true to the command below."
    if chosen("aggregation") != "none":
        mend = "Compare with aggregation=none and compare=true."
    elif chosen("personalization") != "none":
        mend = "Compare with personalization=none and compare=true."
    return (
        "One run under one seed: how far chance moves these figures, and whether federation is "
        f"worth it, it cannot tell. {mend}"
    )


def _odd(told: Mapping[str, Any]) -> list[str]:
    """Return which clients deserve a look, and why."""
    odd = [f"{c['client']}: {c['warning']}" for c in told["clients"] if c["warning"]]
    more = [f"{len(odd) - _MOST_ODD} others, in the table of clients"] * (len(odd) > _MOST_ODD)
    return [f"Look at {'. '.join([*odd[:_MOST_ODD], *more])}."] if odd else []


def _how_it_ended(ended: str, sentence: str, done: int, files: RunFiles) -> list[str]:
    rounds = f"{done} {'round' if done == 1 else 'rounds'}"
    planned = files.settings.get("rounds")
    of = f" of {planned}" if planned else ""
    if ended == FAILED:
        return [f"The run failed after {rounds}{of}: {sentence}"]
    if ended == INTERRUPTED:
        return [f"The run was interrupted after {rounds}{of}: figures are those until then."]
    if ended == CRASHED:
        return [f"The run crashed after {rounds}{of} ({sentence}); its output says where."]
    if ended != FINISHED:
        return [f"The run did not say how it ended; {rounds}{of} are on record."]
    return []


def _attacked(settings: Mapping[str, Any]) -> list[str]:
    attack = settings.get("attack", {})
    if attack.get("name", "none") == "none":
        return []
    share = f" {100 * attack['fraction']:g} % of" if "fraction" in attack else ""
    return [f"An attack was played: attack={attack['name']}, by{share} the clients."]


def _subtitle(files: RunFiles) -> str:
    settings = files.settings
    parts = [
        str(settings[group]["name"]) for group in ("task", "model", "partition", "strategy")
        if isinstance(settings.get(group), dict)
    ]  # fmt: skip
    for group in ("privacy", "aggregation"):
        name = settings.get(group, {}).get("name", "none")
        parts += [] if name == "none" else [name]
    clients = files.summary.get("clients") or files.run.get("clients")
    if clients:
        parts.append(f"{clients:,} client{'' if clients == 1 else 's'}")
    if started := files.run.get("started"):
        parts.append(str(started).replace("T", " ")[:16])
    return " · ".join(parts)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def render(**values: str | Sequence[str] | Sequence[Section] | Mapping[str, Any]) -> str:
    """Fill in the template; all text is escaped, charts are ours."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(values)
