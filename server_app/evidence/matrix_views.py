"""A matrix of runs as tables for the terminal, csv, and a picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]


def show(told: Mapping[str, Any]) -> None:
    """Print one table per page: metric, backdoor success, and who was excluded."""
    console = Console(highlight=False)
    for page in _kinds(told["cells"], "page"):
        console.print(_table(told, page))


def _kinds(cells: Sequence[Row], axis: str) -> list[str]:
    """Return the different values on an axis, in the order in which they came."""
    return list(dict.fromkeys(cell[axis] for cell in cells))


def _table(told: Mapping[str, Any], page: str) -> Table:
    cells = [cell for cell in told["cells"] if cell["page"] == page]
    attacked = any(cell["caught"] is not None for cell in cells)
    backed = any(cell["backdoor"] is not None for cell in cells)
    caption = f"{told['metric']} in %" + ("; b: backdoor success in %" if backed else "")
    if attacked:
        caption += "; below, % of attackers / of honest clients excluded"
    axes = told["axes"]
    corner = " \\ ".join(axes[name] for name in ("row", "column") if axes[name])
    columns = _kinds(cells, "column")
    table = Table(corner, *(c.replace("+", "+\n") for c in columns), title=page, caption=caption)
    by_place = {(cell["row"], cell["column"]): cell for cell in cells}
    for row in _kinds(cells, "row"):
        table.add_row(row, *(_text(by_place[row, column]) for column in columns))
    return table


def _text(cell: Row) -> str:
    if cell["score"] is None:
        return "broke"
    text = f"{100 * cell['score']:.1f}"
    if cell["backdoor"] is not None:
        text += f" b{100 * cell['backdoor']:.0f}"
    if cell["caught"] is not None:
        text += f"\n{100 * cell['caught']:.0f}/{100 * (cell['hurt'] or 0.0):.0f}"
    return text


def write_csv(path: Path, cells: Sequence[Row]) -> None:
    """Write one line per cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(cells[0]))
        writer.writeheader()
        writer.writerows(cells)


def write_heat_map(path: Path, told: Mapping[str, Any]) -> None:
    """Draw the metric of all cells, one panel per page; backdoor success in brackets."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    cells = told["cells"]
    pages, rows, columns = (_kinds(cells, axis) for axis in ("page", "row", "column"))
    size = (3 + 0.65 * len(columns), 2 + 0.4 * len(rows))
    figure, panels = plt.subplots(
        len(pages), 1, figsize=(size[0], size[1] * len(pages)), squeeze=False, layout="constrained"
    )
    for page, axes in zip(pages, panels[:, 0], strict=True):
        _draw(axes, [cell for cell in cells if cell["page"] == page], rows, columns)
        axes.set_xlabel(told["axes"]["column"], fontsize=8)
        axes.set_ylabel(told["axes"]["row"], fontsize=8)
        axes.set_title(" · ".join(part for part in (page, f"{told['metric']} in %") if part))
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=130, format="png")
    plt.close(figure)
    temporary.replace(path)


def _draw(axes: Any, cells: Sequence[Row], rows: list[str], columns: list[str]) -> None:
    values = np.full((len(rows), len(columns)), np.nan)
    known = [100 * cell["score"] for cell in cells if cell["score"] is not None]
    # The colours of what is all alike would be, too.
    least = 10 * (min(known, default=0.0) // 10)
    for cell in cells:
        place = rows.index(cell["row"]), columns.index(cell["column"])
        if cell["score"] is not None:
            values[place] = 100 * cell["score"]
        text = _text({**cell, "caught": None}).replace(" b", "\n(") + (
            ")" if cell["backdoor"] is not None else ""
        )
        dark = not values[place] >= least + 0.6 * (100 - least)
        colour = "white" if dark else "black"
        axes.text(place[1], place[0], text, ha="center", va="center", fontsize=6, color=colour)
    axes.set_facecolor("black")
    axes.imshow(values, cmap="viridis", vmin=least, vmax=100, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", fontsize=7)
    axes.set_yticks(range(len(rows)), [row.replace(" ", "\n") for row in rows], fontsize=7)
