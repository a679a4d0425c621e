"""A client's own record of what was released from its data: a `task.hash_chain` of spends.

One file per data set. A line is on the disk before what it stands for may leave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from task.hash_chain import Body, Chain
from task.privacy.accounting import Spend

_OPTIONAL = ("slack", "renyi")
"""What of a spend is written only where there is some."""


@dataclass(frozen=True)
class Entry:
    """One line.

    Attributes
    ----------
    unit : str
        Whom the noise protects: ``record`` or ``client``.
    spend : Spend
        What was released.
    facts : mapping
        Anything else worth knowing: run, round, rows, time.
    """

    unit: str
    spend: Spend
    facts: Mapping[str, Any]


def standing(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries that count: without those whose session a later one has settled.

    A client that adds its share of the noise to a secure sum writes down beforehand what it costs
    if as few others contribute as may be, and what it did cost once those who did are known.
    """
    settled = {e.facts["settles"] for e in entries if "settles" in e.facts}
    return [entry for entry in entries if entry.facts.get("session", "") not in settled]


class Ledger:
    """A ledger file; it is read and added to as a whole.

    Parameters
    ----------
    path : Path
        Made, with its folder, when the first entry is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._chain = Chain(path, "the privacy ledger", "fedproof ledger", "nothing was released")

    def entries(self) -> list[Entry]:
        """Return all entries, checked.

        Raises
        ------
        DamagedChainError
            If the ledger is torn, edited or cut.
        """
        return self._parsed(self._chain.bodies())

    def spend(self, entry: Entry, allows: Callable[[Sequence[Entry]], None]) -> None:
        """Append an entry, durably, if `allows` lets the whole pass.

        Parameters
        ----------
        entry : Entry
            What is about to be released; on return it may be.
        allows : callable
            Called with all entries, this one last; raises what is to be raised if they are too
            much. No other process appends meanwhile.

        Raises
        ------
        FedproofError
            If the ledger is damaged, in use, or cannot be written. Nothing was appended then.
        """

        def make(bodies: Sequence[Body]) -> Body:
            allows([*self._parsed(bodies), entry])
            return _body(entry)

        self._chain.append(make)

    def repair(self) -> int:
        """Cut off a last line that was not written to its end; return how many bytes that were."""
        return self._chain.repair()

    def _parsed(self, bodies: Sequence[Body]) -> list[Entry]:
        found = []
        for number, body in enumerate(bodies, 1):
            try:
                known = {key: body[key] for key in _OPTIONAL if key in body}
                spend = Spend(
                    float(body["sigma"]), float(body["rate"]), int(body["steps"]), **known
                )
                found.append(Entry(str(body["unit"]), spend, dict(body["facts"])))
            except (ValueError, KeyError, TypeError):
                raise self._chain.damaged(f"line {number} is not what was written") from None
        return found


def _body(entry: Entry) -> Body:
    spend = entry.spend
    body: Body = {
        "unit": entry.unit,
        "sigma": spend.sigma,
        "rate": spend.rate,
        "steps": spend.steps,
        "facts": dict(entry.facts),
    }
    return body | {key: value for key in _OPTIONAL if (value := getattr(spend, key))}
