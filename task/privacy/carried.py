"""Ledgers whose entries another one takes over: they are set aside, and nothing is forgotten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from task.atomic import sync_folder
from task.privacy.ledger import Ledger

_FOLDER = "carried"
"""Where they lie afterwards, below the folder of ledgers."""


def set_aside(path: Path) -> Path:
    """Return where a ledger lies once its entries were carried over."""
    return path.parent / _FOLDER / path.name


def carry(folder: Path, name: str, source: str, *, again: bool) -> None:
    """Write into a source's ledger what another one says; once, however often it is called.

    Whether the rows of the two are others' nobody knows, so what they spent adds up: each has its
    own partition.

    Parameters
    ----------
    folder : Path
        Of ledgers.
    name, source : str
        File names, without suffix, of the other ledger and of the source's.
    again : bool
        Whether a ledger may have come up under that name that is none of the source's.

    Raises
    ------
    FedproofError
        If one of the ledgers is damaged, or cannot be written.
    """
    path = folder / f"{name}.jsonl"
    aside = Ledger(set_aside(path))
    if not (again and aside.head_path.exists()):
        _move(Ledger(path), aside)
    target = Ledger(folder / f"{source}.jsonl")
    done = {entry.facts.get("carried") for entry in target.entries()}
    for number, entry in enumerate(aside.entries(), 1):
        mark = f"{name}:{number}"
        if mark not in done:
            partition = f"{name} {entry.partition}".strip()
            carried = replace(entry, partition=partition, facts={**entry.facts, "carried": mark})
            target.spend(carried, lambda _: None)


def _move(ledger: Ledger, aside: Ledger) -> None:
    ledger.copy_to(aside.path)
    ledger.path.unlink(missing_ok=True)
    ledger.head_path.unlink(missing_ok=True)
    sync_folder(ledger.path.parent)
