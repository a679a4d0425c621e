"""Result tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from server_app.evidence import files
from task.metric_names import GLOBAL

MOST_CLIENTS = 40
"""Clients in a table; of more, the best and the worst are shown."""
_BAR = 10
"""Characters of a budget's bar."""


def human_bytes(count: float) -> str:
    """Return a number of bytes with a decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def budget_text(privacy: Mapping[str, Any]) -> str:
    """Return the ε of whoever spent most, with a bar where there is a limit.

    The limit counts all that is in the ledgers, other runs included.
    """
    limit = privacy.get("max_epsilon")
    if limit is None:
        return f"ε {privacy['epsilon_most']:.2f}"
    spent = max(privacy["ledger_epsilon"].values(), default=0.0)
    full = min(_BAR, round(_BAR * spent / limit))
    return f"ε {spent:.2f} {'█' * full}{'░' * (_BAR - full)} {limit:g}"


def budget_table(privacy: Mapping[str, Any] | None) -> Table | None:
    """Return every client's ε, those who spent most first."""
    if privacy is None:
        return None
    spent = sorted(privacy["epsilon"].items(), key=lambda item: (-item[1], item[0]))
    left = len(spent) - MOST_CLIENTS
    caption = f"{left} clients spent less" if left > 0 else None
    table = Table("client", "ε of this run", "ε of its ledger", caption=caption)
    for client, cost in spent[:MOST_CLIENTS]:
        total = privacy["ledger_epsilon"].get(client)
        mine = {**privacy, "ledger_epsilon": {client: total}, "epsilon_most": total}
        text = "–" if total is None else budget_text(mine)
        table.add_row(escape(client), f"{cost:.3f}", text.removeprefix("ε "))
    return table


def result_table(summary: Mapping[str, Any]) -> Table:
    """Return what a run achieved, and what it cost."""
    table = _figures_table(summary)
    if privacy := summary.get("privacy"):
        table.add_row(f"ε per {privacy['unit']}, at most", f"{privacy['epsilon_most']:.3f}")
        table.add_row("δ", f"{privacy['delta']:g}")
        table.add_section()
    purpose = " to evaluate" if summary.get("privacy", {}).get("secret") else ""
    if secure := summary.get("secure"):
        if secure["smallest_sum"] is not None:
            name = f"{secure['aggregation']}: clients in a sum{purpose}"
            table.add_row(name, f"≥ {secure['smallest_sum']}")
        table.add_row("error of its encoding", f"≤ {secure['error']:.1e}")
        table.add_section()
    table.add_row(f"sent to clients{purpose}", human_bytes(summary["bytes_down"]))
    table.add_row(f"sent by clients{purpose}", human_bytes(summary["bytes_up"]))
    table.add_row(f"seconds{purpose}", f"{summary['seconds']:.1f}")
    return table


def _figures_table(summary: Mapping[str, Any]) -> Table:
    """Return the held-out figures; where clients have models of their own, the global one's beside.

    Of one metric there is then also the clients' mean, and that of the worst tenth of them.
    """
    held_out, errors = summary["held_out"], summary.get("standard_error", {})
    method = summary.get("personalization", "none")
    personal = method != "none"
    names = [summary["task"], summary["strategy"], *[method] * personal]
    title = " · ".join([*names, f"round {summary['evaluated_round']}"])
    both = any(name.startswith(GLOBAL) for name in held_out)
    columns = ["personal", "global"] if both else [""]
    noised = summary.get("evaluation", {}).get("kind") == "noised"
    head = f"held out, all clients{', with noise' if noised else ''}"
    table = Table(head, *columns, title=title, title_justify="left")
    rows = {name: (held_out, name) for name in sorted(held_out) if not name.startswith(GLOBAL)}
    for name, label in (("mean", "mean of clients"), ("worst_decile", "worst tenth")):
        # Sums that hide the clients' answers have neither.
        if personal and summary.get(name):
            rows[f"{summary['metric']}, {label}"] = (summary[name], summary["metric"])
    for label, (figures, name) in rows.items():
        found = [figures.get(prefix + name) for prefix in ("", GLOBAL)[: len(columns)]]
        cells = ["–" if value is None else f"{value:.4f}" for value in found]
        if name in errors:
            cells[0] += f" ± {errors[name]:.4f}"
        table.add_row(escape(label), *cells)
    table.add_section()
    return table


def client_table(run_dir: Path, summary: Mapping[str, Any]) -> Table | None:
    """Return the clients' own metrics in the round that the summary speaks of."""
    rows = files.read_lines(run_dir / files.CLIENTS)
    rows = [row for row in rows if row["round"] == summary["evaluated_round"]]
    return metrics_table(rows, summary["metric"]) if rows else None


def profile_table(run_dir: Path) -> Table | None:
    """Return where the rounds' time went, if it was recorded."""
    lines = files.read_lines(run_dir / files.METRICS)
    profiles = [line["profile"] for line in lines if "profile" in line]
    if not profiles:
        return None
    names = {name for profile in profiles for name in profile}
    means = {n: sum(p.get(n, 0.0) for p in profiles) / len(profiles) for n in names}
    whole = sum(means.values()) or 1.0
    table = Table("a round's time", "seconds", "share", title=f"mean of {len(profiles)} rounds")
    for name in sorted(means, key=lambda n: -means[n]):
        table.add_row(name, f"{means[name]:.4f}", f"{means[name] / whole:.1%}")
    return table


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def metrics_table(rows: Sequence[Mapping[str, Any]], metric: str) -> Table:
    """Return one row per client; of many clients, the worst and best by `metric`."""
    ordered = sorted(rows, key=lambda row: row["client"])
    left_out = len(rows) - MOST_CLIENTS
    if left_out > 0:
        ranked = sorted(rows, key=lambda row: row.get(metric, 0.0))
        ordered = [*ranked[: MOST_CLIENTS // 2], *ranked[-MOST_CLIENTS // 2 :]]
    names = sorted({key for row in rows for key in row} - {"round", "client", "num-examples"})
    if f"{GLOBAL}{metric}" in names:
        # Two models' figures are too many for a terminal.
        names = [metric, f"{GLOBAL}{metric}", "loss", f"{GLOBAL}loss"]
    caption = f"{left_out} clients in between are in {files.CLIENTS}" if left_out > 0 else None
    table = Table("client", "held out", *map(escape, names), caption=caption)
    for row in ordered:
        values = [_cell(row.get(name)) for name in names]
        table.add_row(escape(str(row["client"])), str(row["num-examples"]), *values)
    return table
