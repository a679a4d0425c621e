"""``fedproof ledger PATH``: what was released from a silo's or client's data, and its cost."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conf.errors import FedproofError
from task.privacy.accounting import ACCOUNTANT, RELATION
from task.privacy.composition import composed_epsilon
from task.privacy.ledger import Entry, Head, Ledger, standing
from task.privacy.row_counts import released_counts
from task.privacy.source_key import KEY, source_key


def main(arguments: Sequence[str]) -> None:
    """Verify a ledger and show it.

    Raises
    ------
    FedproofError
        If there is none, or it is damaged.
    """
    parser = argparse.ArgumentParser(prog="fedproof ledger", description=__doc__)
    parser.add_argument("path", type=Path, help="ledger file of one silo, or simulated client")
    parser.add_argument("--delta", type=float, default=1e-5, help="default: %(default)g")
    parser.add_argument("--repair", action="store_true", help="cut off a torn last line")
    parser.add_argument(
        "--expect", metavar="N:HASH", help="head that others keep: is this ledger older?"
    )
    told = parser.parse_args(arguments)
    if not told.path.is_file():
        raise FedproofError(f"{told.path} is no ledger: give the file of one silo or client.")
    if not 0 < told.delta < 1:
        raise FedproofError(f"--delta={told.delta:g} must lie between 0 and 1.")
    ledger = Ledger(told.path)
    if told.repair:
        print(f"{ledger.repair()} bytes of a torn line were cut off.")
    show(ledger.entries(), told.delta)
    _show_head(ledger, told.expect)


def show(entries: Sequence[Entry], delta: float) -> None:
    """Print one row per entry, and the cost of all so far."""
    table = Table(
        "run", "round", "unit", "σ", "rate", "steps", "rows", "rows of", "when", "ε so far"
    )
    for number, entry in enumerate(entries, 1):
        spend, facts = entry.spend, entry.facts
        same = [e for e in standing(entries[:number]) if e.unit == entry.unit]
        when = datetime.fromtimestamp(facts.get("time", 0), UTC).isoformat(" ", "minutes")
        table.add_row(
            str(facts.get("run", ""))[:8], _round_of(entry), entry.unit,
            f"{spend.sigma:.4g}", f"{spend.rate:.4g}", str(spend.steps), str(facts.get("rows", "")),
            escape(", ".join(filter(None, (entry.client, entry.partition)))),
            when[:16], f"{composed_epsilon(same, delta):.4f}",
        )  # fmt: skip
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{len(entries)} entries, chain verified · δ = {delta:g} · {RELATION} · {ACCOUNTANT}"
    )


def _round_of(entry: Entry) -> str:
    released = released_counts([entry])
    if released is not None:
        return f"counts {released.train}, {released.test}"
    return str(entry.facts.get("round", ""))


def _show_head(ledger: Ledger, expected: str | None) -> None:
    """Print where a silo's ledger ends, as others know it, and compare.

    Raises
    ------
    FedproofError
        If it does not go on from what is expected, or there is no key to tell.
    """
    folder = ledger.path.parent
    if not (folder / KEY).exists():
        if expected is not None:
            raise FedproofError(f"there is no {folder / KEY}: a head is a hash under that key.")
        return
    secret = source_key(folder, missed=True)
    if expected is not None:
        ledger.require_from(Head.read(expected), "--expect", secret)
    print(f"head {ledger.head().sealed(secret)}")
