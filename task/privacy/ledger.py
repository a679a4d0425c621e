"""The record of what was released from some rows: a `task.hash_chain` of spends.

One file per data source, or per simulated client. A line is on the disk before what it stands for
may leave.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from conf.errors import FedproofError
from task.hash_chain import Body, Chain
from task.privacy.accounting import Spend

_OPTIONAL = ("slack", "renyi")
_OF_WHOM = ("partition", "client")
"""What of a spend, and of an entry, is written only where there is some."""


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
    partition : str
        What dealt the source's rows to clients, so that two clients of it have no row in common.
    client : str
        Of whose rows, among those; empty where one client has all rows.
    """

    unit: str
    spend: Spend
    facts: Mapping[str, Any]
    partition: str = ""
    client: str = ""

    @property
    def rows_of(self) -> tuple[str, str]:
        """Which rows it is about."""
        return self.partition, self.client


@dataclass(frozen=True)
class Head:
    """Where a ledger ends.

    Attributes
    ----------
    number : int
        Of its last entry; 0 if it has none.
    digest : str
        Hash of that line, and so of all before it: 64 hexadecimal digits.
    """

    number: int
    digest: str

    @classmethod
    def read(cls, text: str) -> Self:
        """Read ``NUMBER:HASH``.

        Raises
        ------
        FedproofError
            If it is something else.
        """
        if not is_head(text):
            raise FedproofError(f"'{text[:80]}' is no head of a ledger: give NUMBER:HASH.")
        number, _, digest = text.partition(":")
        return cls(int(number), digest)

    def sealed(self, secret: bytes) -> Self:
        """Return what may be told to others: a hash under the source's secret.

        From the line's own hash they could test guesses at what the line says.
        """
        digest = hashlib.blake2b(self.digest.encode(), key=secret, digest_size=32).hexdigest()
        return replace(self, digest=digest)

    def __str__(self) -> str:
        return f"{self.number}:{self.digest}"


def is_head(text: str) -> bool:
    """Tell whether a text is ``NUMBER:HASH``."""
    return re.fullmatch(r"[0-9]{1,9}:[0-9a-f]{64}", text) is not None


def standing(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries that count: without those whose session a later one has settled.

    A client that adds its share of the noise to a secure sum writes down beforehand what it costs
    if as few others contribute as may be, and what it did cost once those who did are known.
    """
    settled = {(*e.rows_of, e.facts["settles"]) for e in entries if "settles" in e.facts}
    return [e for e in entries if (*e.rows_of, e.facts.get("session")) not in settled]


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

    def head(self) -> Head:
        """Return where the ledger ends.

        Raises
        ------
        FedproofError
            If it is damaged at its end, or cannot be read.
        """
        last = self._chain.last()
        return Head(last.number, last.digest)

    def require_from(self, head: Head, keeper: str, secret: bytes | None = None) -> None:
        """Refuse a ledger that does not go on from where it ended once: an older, or another one.

        Parameters
        ----------
        head : Head
            Where it ended; sealed, if a secret is given.
        keeper : str
            Who says so.
        secret : bytes or None
            What it was sealed with.

        Raises
        ------
        FedproofError
            Then, or if it is damaged.
        """
        if head.number == 0 or (secret is None and self.head() == head):
            return
        digests = self._chain.digests()
        if head.number <= len(digests):
            then = Head(head.number, digests[head.number - 1])
            if hmac.compare_digest((then.sealed(secret) if secret else then).digest, head.digest):
                return
        raise FedproofError(
            f"the privacy ledger {self.path.name} has {len(digests)} entries and does not go on "
            f"from the entry {head.number} that {keeper} knows: an older one was put back; put "
            "back the newest."
        )

    @property
    def head_path(self) -> Path:
        """The file that says where the ledger ends."""
        return self._chain.head_path

    def copy_to(self, path: Path) -> None:
        """Copy the ledger with its head, while nobody appends; nothing if there is none."""
        self._chain.copy_to(path)

    def spend(self, entry: Entry, allows: Callable[[Sequence[Entry]], object]) -> None:
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
                whom = {key: str(body[key]) for key in _OF_WHOM if key in body}
                found.append(Entry(str(body["unit"]), spend, dict(body["facts"]), **whom))
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
    body |= {key: value for key in _OPTIONAL if (value := getattr(spend, key))}
    return body | {key: value for key in _OF_WHOM if (value := getattr(entry, key))}
