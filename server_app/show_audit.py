"""``fedproof audit-log PATH``: what a silo was asked, what it decided, and what left."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conf.errors import FedproofError
from task.audit import AuditLog, Receipt
from task.shown import shown


def main(arguments: Sequence[str]) -> None:
    """Show an audit log, or only verify it.

    Raises
    ------
    FedproofError
        If there is none, or it is damaged.
    """
    parser = argparse.ArgumentParser(prog="fedproof audit-log", description=main.__doc__)
    parser.add_argument("words", nargs="+", metavar="[verify] PATH", help="file of one silo")
    parser.add_argument("--last", type=int, default=50, help="lines to show, default: %(default)s")
    parser.add_argument("--repair", action="store_true", help="cut off a torn last line")
    told = parser.parse_args(arguments)
    only = told.words[0] == "verify" and len(told.words) == 2
    if len(told.words) != 1 + only:
        raise FedproofError("give one audit log: fedproof audit-log [verify] PATH.")
    path = Path(told.words[-1])
    if not path.is_file():
        raise FedproofError(f"{path} is no audit log: give the silo's file.")
    audit = AuditLog(path)
    if told.repair:
        print(f"{audit.repair()} bytes of a torn line were cut off.")
    receipts = audit.receipts()
    if not only:
        show(receipts[-told.last :])
    refused = sum(receipt.decision != "answered" for receipt in receipts)
    print(f"{len(receipts)} messages, {refused} refused, chain verified.")


def show(receipts: Iterable[Receipt]) -> None:
    """Print one row per message."""
    table = Table("when", "message", "run", "round", "decision", "rows", "left", "norm", "ε", "why")
    for receipt in receipts:
        when = datetime.fromtimestamp(receipt.time).isoformat(" ", "seconds")
        rows = ", ".join(f"{client} {count}" for client, count in receipt.rows.items())
        why = "; ".join([*filter(None, [receipt.reason]), *receipt.errors.values()])
        left = receipt.left
        table.add_row(
            when, _cell(receipt.message, 40), _cell(receipt.run, 8), str(receipt.round or ""),
            receipt.decision, _cell(rows), f"{left.get('bytes', 0)} B", f"{left.get('norm', '')}",
            f"{left.get('epsilon', '')}", _cell(why),
        )  # fmt: skip
    Console(highlight=False).print(table)


def _cell(text: str, most: int = 1000) -> str:
    """Return what a server may have written, as text that a terminal shows and does not obey."""
    return escape(shown(text, most))
