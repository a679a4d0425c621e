"""``fedproof ledger PATH``: what was released from a client's data, and what it cost."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conf.errors import FedproofError
from task.privacy.accounting import ACCOUNTANT, RELATION, epsilon
from task.privacy.ledger import Entry, Ledger, standing


def main(arguments: Sequence[str]) -> None:
    """Verify a ledger and show it.

    Raises
    ------
    FedproofError
        If there is none, or it is damaged.
    """
    parser = argparse.ArgumentParser(prog="fedproof ledger", description=__doc__)
    parser.add_argument("path", type=Path, help="ledger file of one client")
    parser.add_argument("--delta", type=float, default=1e-5, help="default: %(default)g")
    parser.add_argument("--repair", action="store_true", help="cut off a torn last line")
    told = parser.parse_args(arguments)
    if not told.path.is_file():
        raise FedproofError(f"{told.path} is no ledger: give the file of one client.")
    if not 0 < told.delta < 1:
        raise FedproofError(f"--delta={told.delta:g} must lie between 0 and 1.")
    ledger = Ledger(told.path)
    if told.repair:
        print(f"{ledger.repair()} bytes of a torn line were cut off.")
    show(ledger.entries(), told.delta)


def show(entries: Sequence[Entry], delta: float) -> None:
    """Print one row per entry, and the cost of all so far."""
    table = Table("run", "round", "unit", "σ", "rate", "steps", "rows", "when", "ε so far")
    for number, entry in enumerate(entries, 1):
        spend, facts = entry.spend, entry.facts
        same = [e.spend for e in standing(entries[:number]) if e.unit == entry.unit]
        when = datetime.fromtimestamp(facts.get("time", 0), UTC).isoformat(" ", "minutes")
        table.add_row(
            str(facts.get("run", ""))[:8], str(facts.get("round", "")), entry.unit,
            f"{spend.sigma:.4g}", f"{spend.rate:.4g}", str(spend.steps), str(facts.get("rows", "")),
            when[:16], f"{epsilon(same, delta):.4f}",
        )  # fmt: skip
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{len(entries)} entries, chain verified · δ = {delta:g} · {RELATION} · {ACCOUNTANT}"
    )
