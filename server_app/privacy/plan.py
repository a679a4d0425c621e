"""``privacy.plan=true``: what a run would cost each client, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from conf.errors import FedproofError
from conf.schema import Settings
from server_app.privacy.account import HELD_OUT
from task.privacy.accounting import ACCOUNTANT, RELATION, epsilon
from task.privacy.base import Privacy, below_share
from task.privacy.client_dp import ClientDP
from task.privacy.distributed_dp import DistributedDP
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
    privacy = mechanism_of(settings)
    if privacy is None:
        raise FedproofError(
            "privacy.plan=true needs a mechanism: add privacy=record_dp or privacy=client_dp."
        )
    source = DataSource(settings)
    rows = {client: source.size(client)[0] for client in source.clients}
    rows = {client: count for client, count in rows.items() if count}
    if isinstance(privacy, ClientDP):
        below_share(privacy.delta, len(rows), "clients")
    smallest = min(rows.values(), default=0)
    console = Console(highlight=False)
    console.print(client_table(settings, privacy, rows))
    console.print(choice_table(settings, privacy, smallest))
    console.print(f"{RELATION} · {ACCOUNTANT} · a client that takes part in every round")
    console.print(f"evaluation: {HELD_OUT[privacy.evaluation]}", soft_wrap=True)


def client_table(settings: Settings, privacy: Privacy, rows: Mapping[str, int]) -> Table:
    """Return one row per client, those with the fewest rows first: they pay the most.

    At client level all pay the same.
    """
    ordered = sorted(rows.items(), key=lambda item: (item[1], item[0]))
    left, caption = len(rows) - MOST_CLIENTS, None
    if isinstance(privacy, ClientDP):
        ordered = [(f"each of {len(rows)}", max(rows.values()))] if rows else []
    elif left > 0:
        caption = f"{left} clients with more rows pay less"
    table = Table(
        "client", "rows", "rate", "steps", "σ", "ε", caption=caption,
        title=f"{settings.rounds} rounds, δ = {privacy.delta:g}", title_justify="left",
    )  # fmt: skip
    for client, count in ordered[:MOST_CLIENTS]:
        whole, *evaluations = privacy.planned(client, count)
        if isinstance(privacy, DistributedDP):
            cohort = max(1, round(settings.federation.fraction * len(rows)))
            whole = replace(whole, sigma=privacy.counted(cohort))
        cost = epsilon([whole, *evaluations], privacy.delta)
        table.add_row(
            client, str(count), f"{whole.rate:.4g}", str(whole.steps), f"{whole.sigma:.4g}",
            f"{cost:.3f}",
        )  # fmt: skip
    return table


def choice_table(settings: Settings, privacy: Privacy, rows: int) -> Table:
    """Return ε by rounds and noise multiplier for a client with so many rows."""
    rounds = sorted({max(1, round(settings.rounds * share)) for share in _SHARES})
    table = Table("σ", *(f"{number} rounds" for number in rounds))
    table.title_justify = "left"
    table.title = f"ε of training a client with {rows} rows"
    for sigma in _NOISES:
        costs = (
            epsilon([replace(privacy.over(n, "the smallest", rows), sigma=sigma)], privacy.delta)
            for n in rounds
        )
        table.add_row(f"{sigma:g}", *(f"{cost:.3f}" for cost in costs))
    return table
