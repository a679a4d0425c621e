"""What a page is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server_app.evidence.tables import human_bytes
from server_app.report.charts import Bars, bars_chart
from task.objectives import SHARES

MOST_ROWS = 400
"""Of a table; of more rounds, every so manieth is shown."""
MOST_BARS = 24
"""Clients in a chart; of more, those at both ends are shown."""


@dataclass(frozen=True)
class Table:
    """Rows of text under a head."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart, and the numbers in it."""

    title: str
    svg: str
    table: Table
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a page under its own title."""

    title: str
    paragraphs: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    code: Sequence[tuple[str, str]] = field(default=())
    """Titles and texts that are folded away."""


def number(value: Any) -> str:
    """Return a figure as text; a dash for none."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 1000 else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def spread(value: Mapping[str, Any] | None) -> str:
    """Return a mean with its interval."""
    if value is None:
        return "–"
    if value["low"] is None:
        return number(value["mean"])
    return f"{value['mean']:.4f} ({value['low']:.4f} to {value['high']:.4f})"


def gained(value: Mapping[str, Any] | None, metric: str) -> str:
    """Return a difference with its interval: of shares in points, of other metrics as it is."""
    if value is None:
        return "–"
    scale, form, unit = (100, "+.1f", " points") if metric in SHARES else (1, "+.4f", "")
    mean, low, high = (
        None if value[key] is None else format(scale * value[key], form)
        for key in ("mean", "low", "high")
    )
    return f"{mean}{unit}" + ("" if low is None else f" ({low} to {high})")


def duration(seconds: float) -> str:
    """Return seconds as text, in the unit that suits them."""
    for most, unit, name in (
        (0.1, 0.001, "ms"), (120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h"),
    ):  # fmt: skip
        if seconds < most:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 86_400:,.1f} days"


def size(count: float) -> str:
    """Return bytes as text."""
    return human_bytes(count)


def thinned(rows: Sequence[Any], most: int = MOST_ROWS) -> list[Any]:
    """Return at most about `most` rows, evenly spaced, the first and the last among them."""
    every = -(-len(rows) // most) if rows else 1
    kept = list(rows[::every])
    return kept if not rows or kept[-1] is rows[-1] else [*kept, rows[-1]]


def both_ends(rows: Iterable[Any], most: int = MOST_BARS) -> list[Any]:
    """Return at most `most` of some ordered rows: the first and the last."""
    listed = list(rows)
    half = most // 2
    return listed if len(listed) <= most else [*listed[:half], *listed[-half:]]


def left_out(count: int) -> str:
    """Return what is to be said of a chart that cannot show so many."""
    return f"Of {count} clients, those at both ends." if count > MOST_BARS else ""


def ranked(title: str, unit: str, values: Sequence[tuple[str, float]], table: Table) -> Figure:
    """Return a bar for each name, in the order given, and the numbers of all."""
    shown = both_ends(values)
    bars = Bars(title, [value for _, value in shown], *[[None] * len(shown)] * 2)
    svg = bars_chart(title, [name for name, _ in shown], [bars], unit)
    return Figure(title, svg, table, left_out(len(values)))
