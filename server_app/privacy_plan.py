"""``privacy.plan=true``: what a run would cost each client, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from conf.errors import FedproofError
from conf.schema import Settings
from task.privacy.accounting import ACCOUNTANT, RELATION, epsilon
from task.privacy.policy import mechanism_of
from task.source import DataSource

MOST_CLIENTS = 20
_SHARES = (0.25, 0.5, 1.0, 2.0)
_NOISES = (0.5, 0.7, 1.0, 1.5, 2.0)


def show_plan(settings: Settings) -> None:
    """Print each client's noise and ε over the planned rounds, and what other choices would cost.

    Raises
    ------
    FedproofError
        If the settings fit no client.
    """
    source = DataSource(settings)
    rows = {client: source.size(client)[0] for client in source.clients}
    console = Console(highlight=False)
    console.print(client_table(settings, {client: n for client, n in rows.items() if n}))
    smallest = min((n for n in rows.values() if n), default=0)
    console.print(choice_table(settings, smallest))
    console.print(f"{RELATION} · {ACCOUNTANT} · a client that takes part in every round")


def client_table(settings: Settings, rows: Mapping[str, int]) -> Table:
    """Return one row per client, those with the fewest rows first: they pay the most."""
    mechanism = mechanism_of(settings)
    if mechanism is None:
        raise FedproofError("privacy.plan=true needs a mechanism: add privacy=record_dp.")
    title = f"{settings.rounds} rounds, δ = {mechanism.delta:g}"
    left = len(rows) - MOST_CLIENTS
    caption = f"{left} clients with more rows pay less" if left > 0 else None
    table = Table(
        "client", "rows", "rate", "steps", "σ", "ε", title=title, caption=caption,
        title_justify="left",
    )  # fmt: skip
    for client, count in sorted(rows.items(), key=lambda item: (item[1], item[0]))[:MOST_CLIENTS]:
        spend = mechanism.mechanism(client, count).spend
        whole = replace(spend, steps=spend.steps * settings.rounds)
        cost = epsilon([whole], mechanism.delta)
        table.add_row(
            client, str(count), f"{spend.rate:.4g}", str(whole.steps), f"{spend.sigma:.4g}",
            f"{cost:.3f}",
        )  # fmt: skip
    return table


def choice_table(settings: Settings, rows: int) -> Table:
    """Return ε by rounds and noise multiplier for a client with so many rows."""
    mechanism = mechanism_of(settings)
    assert mechanism is not None
    spend = mechanism.mechanism("the smallest", rows).spend
    rounds = sorted({max(1, round(settings.rounds * share)) for share in _SHARES})
    table = Table("σ", *(f"{number} rounds" for number in rounds))
    table.title, table.title_justify = f"ε of a client with {rows} rows", "left"
    for sigma in _NOISES:
        costs = (
            epsilon([replace(spend, sigma=sigma, steps=spend.steps * number)], mechanism.delta)
            for number in rounds
        )
        table.add_row(f"{sigma:g}", *(f"{cost:.3f}" for cost in costs))
    return table
