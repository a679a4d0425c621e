"""Charts as inline SVG, whose colours are the page's: so they follow light and dark.

Matplotlib is told stand-in colours, which become CSS variables afterwards. Series differ by dash,
marker or hatch as well as by colour.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

INK, LINE, CARD = "#010203", "#010204", "#010205"
SERIES = ("#010211", "#010212", "#010213", "#010214")
_VARIABLES = {INK: "var(--ink)", LINE: "var(--line)", CARD: "var(--card)"} | {
    colour: f"var(--s{i})" for i, colour in enumerate(SERIES, 1)
}
_DASHES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D")
_HATCHES = ("", "////", None, "\\\\\\\\")
"""None: a hollow bar. Dots would make pages ten times as large."""
WIDTH = 4.6
"""Inches: about what a phone shows without shrinking the text."""
_MOST_MARKERS = 25
_LONGEST = 18
"""Characters of a name in a chart."""
LINES = " · "
"""What separates the lines of a name."""


@dataclass(frozen=True)
class Curve:
    """Values over rounds, with the range over seeds if there are several."""

    name: str
    rounds: Sequence[float]
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Bars:
    """One figure of each client, with an interval if it has one; None where there is none."""

    name: str
    values: Sequence[float | None]
    low: Sequence[float | None]
    high: Sequence[float | None]


def curves_chart(
    title: str, curves: Sequence[Curve], levels: Mapping[str, float], unit: str = ""
) -> str:
    """Draw curves over rounds, and levels that hold for the end, as SVG."""
    figure, axes = _figure(2.9)
    for i, curve in enumerate(curves):
        every = max(1, len(curve.rounds) // _MOST_MARKERS)
        axes.plot(
            curve.rounds, curve.values, _DASHES[i], color=SERIES[i], marker=_MARKERS[i],
            markersize=3.5, markevery=every, linewidth=1.6, label=curve.name,
        )  # fmt: skip
        if curve.low is not None:
            axes.fill_between(
                curve.rounds, curve.low, curve.high, color=SERIES[i], alpha=0.18, lw=0
            )
    for i, (name, value) in enumerate(levels.items(), len(curves)):
        axes.axhline(value, color=SERIES[i], linestyle=_DASHES[i], linewidth=1.6, label=name)
    axes.set_xlabel("round")
    axes.set_ylabel(unit)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(curves) + len(levels) > 1:
        _legend(axes, len(curves) + len(levels))
    return _svg(figure, title)


def bars_chart(title: str, names: Sequence[str], bars: Sequence[Bars], unit: str) -> str:
    """Draw a group of horizontal bars for each name, as SVG."""
    rows = len(names) * len(bars)
    figure, axes = _figure(0.9 + 0.13 * len(names) + 0.17 * rows)
    height = 0.8 / len(bars)
    for i, bar in enumerate(bars):
        places = np.arange(len(names)) - 0.4 + (i + 0.5) * height
        values = np.array([np.nan if v is None else v for v in bar.values])
        hollow = _HATCHES[i] is None
        axes.barh(
            places, values, height * 0.85, label=bar.name, hatch=_HATCHES[i],
            facecolor=CARD if hollow else SERIES[i], edgecolor=SERIES[i] if hollow else CARD,
            linewidth=1.2 if hollow else 0,
        )  # fmt: skip
        _whiskers(axes, places, values, bar)
    _named(axes, names)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(unit)
    if len(bars) > 1:
        _legend(axes, len(bars))
    return _svg(figure, title)


def points_chart(
    title: str, names: Sequence[str], bars: Bars, unit: str, *, zero: bool = True
) -> str:
    """Draw a point with its interval for each name, with a line at zero if wanted, as SVG."""
    lines = max((name.count(LINES) for name in names), default=0) + 1
    figure, axes = _figure(0.9 + (0.12 + 0.14 * lines) * len(names))
    places = np.arange(len(names))
    values = np.array([np.nan if v is None else v for v in bars.values])
    if zero:
        axes.axvline(0, color=INK, linewidth=1)
    axes.plot(values, places, "o", color=SERIES[0], markersize=5)
    _whiskers(axes, places, values, bars, SERIES[0])
    _named(axes, names)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(unit)
    return _svg(figure, title)


def _whiskers(axes: Any, places: Any, values: Any, bars: Bars, colour: str = INK) -> None:
    for place, value, low, high in zip(places, values, bars.low, bars.high, strict=True):
        if low is not None and high is not None and np.isfinite(value):
            axes.plot([low, high], [place, place], "-", color=colour, linewidth=1.4)


def _named(axes: Any, names: Sequence[str]) -> None:
    # A dollar in a client's name begins no formula.
    axes.set_yticks(np.arange(len(names)), [_short(name) for name in names], parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def _short(name: str) -> str:
    """Cut the middle out of what is long: names often begin alike."""
    parts = name.split(LINES)
    return "\n".join(p if len(p) <= _LONGEST else f"{p[:9]}…{p[-8:]}" for p in parts)


def _figure(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set(color=INK, fontsize=9)
    axes.yaxis.label.set(color=INK, fontsize=9)
    axes.grid(visible=True, color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(axes: Any, columns: int) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=min(columns, 3), frameon=False,
        fontsize=9, labelcolor=INK, borderaxespad=0.2, columnspacing=1.2, handlelength=2.2,
    )  # fmt: skip


def _svg(figure: Any, title: str) -> str:
    """Return a figure as an SVG element that stands in a page with others."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    # Text stays text; the salt keeps the ids of one page's charts apart, and the same every time.
    style = {"svg.fonttype": "none", "svg.hashsalt": title, "hatch.linewidth": 0.7}
    with mpl.rc_context(style):
        # `savefig` would draw it twice.
        canvas = FigureCanvasSVG(figure)
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    # Groups' ids are the same in every chart.
    text = re.sub(r' id="[\w.]+_\d+"', "", text)
    text = re.sub(r"font-family: [^;]*;", "font-family: var(--font);", text)
    text = re.sub("|".join(_VARIABLES), lambda found: _VARIABLES[found[0]], text)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text)
    label = re.sub(r'[<>&"]', "", title)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
