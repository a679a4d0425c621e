"""What a page is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server_app.evidence.tables import human_bytes

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
