"""The table, the figures and the plot."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.simulation.contenders import CONTENDERS, LIMIT, OURS
from benchmarks.simulation.measure import Run
from benchmarks.simulation.workloads import WORKLOADS


@dataclass
class Row:
    """A contender's runs of one workload, and why one failed."""

    runs: list[Run] = field(default_factory=list)
    failure: str | None = None

    @property
    def seconds(self) -> list[float]:
        """Of all timed rounds."""
        return [seconds for run in self.runs for seconds in run.seconds]

    def facts(self) -> dict[str, Any]:
        """Return what the JSON file keeps."""
        facts: dict[str, Any] = {"failure": self.failure} if self.failure else {}
        if self.runs:
            facts |= {
                "median": statistics.median(self.seconds),
                "min": min(self.seconds),
                "max": max(self.seconds),
                "peak_pss_mb": round(max(run.peak for run in self.runs) / 1e6),
                "seconds": [run.seconds for run in self.runs],
            }
        return facts


Rows = Mapping[str, Row]
"""By contender."""


def table(workload: str, rows: Rows) -> Iterator[str]:
    """Yield the lines of a Markdown table, and a sentence for each failure."""
    yield f"{workload}: {WORKLOADS[workload].title}\n"
    yield f"| | s/round | min | max | × {CONTENDERS[OURS].title} | peak PSS MB |"
    yield "|---|---|---|---|---|---|"
    ours = rows[OURS].facts().get("median") if OURS in rows else None
    for name, row in rows.items():
        facts, title = row.facts(), CONTENDERS[name].title
        if not row.runs:
            yield f"| {title} | failed | – | – | – | – |"
            continue
        times = " | ".join(f"{facts[key]:.3g}" for key in ("median", "min", "max"))
        ratio = f"{facts['median'] / ours:.2f}" if ours else "–"
        memory = "–" if name == LIMIT else facts["peak_pss_mb"]
        yield f"| {title} | {times} | {ratio} | {memory} |"
    yield ""
    for name, row in rows.items():
        if row.failure:
            yield f"{CONTENDERS[name].title} failed: {row.failure}\n"


def plot(results: Mapping[str, Rows], path: Path) -> None:
    """Draw each contender's median, fastest and slowest round, one panel per workload."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(
        len(results), 1, figsize=(8, 2.6 * len(results)), squeeze=False, layout="constrained"
    )
    for (workload, rows), panel in zip(results.items(), panels[:, 0], strict=True):
        finished = [name for name in reversed(list(rows)) if rows[name].runs]
        for height, name in enumerate(finished):
            _mark(panel, height, name, rows[name])
        panel.set_yticks(range(len(finished)), [CONTENDERS[name].title for name in finished])
        panel.set_xscale("log")
        panel.margins(0.15, 0.08)
        panel.grid(axis="x", alpha=0.3)
        panel.set_title(f"{workload}: {WORKLOADS[workload].title}", loc="left", fontsize=10)
    panels[-1, 0].set_xlabel("seconds per round: median, fastest and slowest")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _mark(panel: Any, height: int, name: str, row: Row) -> None:
    ours = CONTENDERS[name].module == CONTENDERS[OURS].module
    colour = "tab:orange" if ours else "tab:gray" if name == LIMIT else "tab:blue"
    low, middle, high = min(row.seconds), statistics.median(row.seconds), max(row.seconds)
    panel.plot([low, high], [height, height], color=colour, alpha=0.4, linewidth=5)
    panel.plot(middle, height, "o", color=colour)
    panel.annotate(
        f"{middle:.3g}", (high, height), (7, 0), textcoords="offset points", va="center", fontsize=8
    )
