"""A picture of a partition: how many rows of which label each client has."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from task.base import Pool

MOST_NAMED = 40
"""Clients that get a name on the axis."""


def plot_labels(
    pool: Pool[Any], parts: Mapping[str, NDArray[np.int64]], path: Path, title: str
) -> None:
    """Write stacked bars per client to `path`, and the counts to a csv beside it.

    Rows without labels are drawn as one kind.
    """
    labels = np.zeros(len(pool.rows), dtype=np.int64) if pool.labels is None else pool.labels
    kinds = np.unique(labels)
    counts = np.array([[(labels[rows] == kind).sum() for kind in kinds] for rows in parts.values()])
    names = ["rows"] if pool.labels is None else [f"label {kind}" for kind in kinds]
    _write_counts(path.with_suffix(".csv"), list(parts), names, counts)
    _draw(path, title, list(parts), names, counts)


def _write_counts(
    path: Path, clients: list[str], names: list[str], counts: NDArray[np.int64]
) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["client", *names])
        writer.writerows([client, *row] for client, row in zip(clients, counts, strict=True))


def _draw(
    path: Path, title: str, clients: list[str], names: list[str], counts: NDArray[np.int64]
) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    width = min(16.0, 4.0 + 0.3 * len(clients))
    figure, axes = plt.subplots(figsize=(width, 4.5), layout="constrained")
    # Viridis keeps its order without colour vision and in grey.
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.95, len(names)))
    places, base = np.arange(len(clients)), np.zeros(len(clients))
    for name, column, colour in zip(names, counts.T, colours, strict=True):
        axes.bar(places, column, bottom=base, color=colour, width=0.85, label=name)
        base = base + column
    axes.set(title=title, ylabel="rows", xlabel=f"{len(clients)} clients")
    if len(clients) <= MOST_NAMED:
        axes.set_xticks(places, clients, rotation=60 if width > 5 else 0, ha="right")
    else:
        axes.set_xticks([])
    if 1 < len(names) <= 20:
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=130, format="png")
    plt.close(figure)
    temporary.replace(path)
