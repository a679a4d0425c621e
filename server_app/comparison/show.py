"""Run a comparison, weigh it, and print what it comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conf.errors import FedproofError
from conf.schema import Settings
from server_app.comparison.runner import Train, run_comparison
from server_app.comparison.summary import summarize
from server_app.evidence.tables import MOST_CLIENTS

MODELS = {
    "federated": "federated", "local": "alone", "central": "centralised",
    "unprotected": "without privacy",
}  # fmt: skip
"""Kinds of models, as readers call them."""


def compare(settings: Settings, overrides: Sequence[str], run_dir: Path, train: Train) -> None:
    """Train every seed with its baselines, and print the verdict.

    Raises
    ------
    FedproofError
        If a run did not finish.
    """
    run_comparison(settings, overrides, run_dir, train)
    told = summarize(run_dir)
    if told is None:
        raise FedproofError(f"{run_dir} holds no finished run to compare: run it again.")
    console = Console(highlight=False)
    console.print(verdict_table(told))
    sentence = f"{told['sentence'][:1].upper()}{told['sentence'][1:]}"
    console.print(sentence, style="bold", markup=False)


def verdict_table(told: Mapping[str, Any]) -> Table:
    """Return every client's figures, those who gain most first."""
    clients = sorted(
        (c for c in told["clients"] if c["gain"]), key=lambda client: -client["gain"]["mean"]
    )
    left = len(clients) - MOST_CLIENTS
    caption = f"{left} clients gain less" if left > 0 else None
    kinds = [kind for kind in MODELS if any(c.get(kind) for c in clients)]
    table = Table(
        "client", *(MODELS[kind] for kind in kinds), "gain", "from", "to", "",
        caption=caption, box=SIMPLE_HEAD, pad_edge=False, title_justify="left",
        title=f"{told['metric']}, {told['seeds']} seeds",
    )  # fmt: skip
    for c in clients[:MOST_CLIENTS]:
        gain = c["gain"]
        bounds = ["–" if gain[end] is None else f"{gain[end]:+.3f}" for end in ("low", "high")]
        figures = [f"{c[kind]['mean']:.3f}" if c[kind] else "–" for kind in kinds]
        table.add_row(
            escape(c["client"]), *figures, f"{gain['mean']:+.3f}", *bounds,
            escape(c["effect"]),
        )  # fmt: skip
    return table
