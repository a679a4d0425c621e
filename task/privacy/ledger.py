"""A client's own record of what was released from its data: append-only, chained, durable.

One file of JSON lines per data set. Each line holds the hash of the one before, so an edit anywhere
shows; a second file holds the last hash, so lines cut off at the end show, too. A line is on the
disk before what it stands for may leave. Whoever can rewrite both files can rewrite history: they
are the client's, and only the client relies on them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import FedproofError
from task.atomic import atomic
from task.privacy.accounting import Spend

PATIENCE = 30.0
"""Seconds to wait for another process that has the ledger."""
_FIRST = "0" * 64
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


class DamagedLedgerError(FedproofError):
    """A ledger that is not what was written; nothing may be released on its account."""


class Ledger:
    """A ledger file; `open` it to read and append.

    Parameters
    ----------
    path : Path
        Made, with its folder, when the first entry is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._head = path.with_name(path.name + ".head")

    def entries(self) -> list[Entry]:
        """Return all entries, checked.

        Raises
        ------
        DamagedLedgerError
            If the ledger is torn, edited or cut.
        """
        return [entry for entry, _ in self._read()]

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
        with self._locked() as file:
            known = self._read()
            allows([*(item for item, _ in known), entry])
            last = known[-1][1] if known else _FIRST
            # If the last writer ended before this: a ledger is never two lines beyond its head.
            self._point_at(len(known), last)
            line, digest = _line(len(known) + 1, entry, last)
            self._append(file, line)
            self._point_at(len(known) + 1, digest)

    def repair(self) -> int:
        """Cut off a last line that was not written to its end; return how many bytes that were.

        Nothing was released on its account, for that waits until a line is on the disk.
        """
        with self._locked() as file:
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            os.ftruncate(file, whole)
            os.fsync(file)
            return len(content) - whole

    def _point_at(self, number: int, digest: str) -> None:
        """Write the head, unless it says so already."""
        told = f"{number} {digest}\n"
        if number == 0 or (self._head.exists() and self._head.read_text("ascii") == told):
            return
        with self._writing(), atomic(self._head) as temporary:
            temporary.write_text(told, encoding="ascii")

    @contextmanager
    def _locked(self) -> Iterator[int]:
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise FedproofError(
                            "the privacy ledger is in use by another process: wait for it to end."
                        ) from None
                    time.sleep(0.01)
            yield file
        finally:
            os.close(file)

    def _append(self, file: int, line: bytes) -> None:
        size = os.fstat(file).st_size
        try:
            with self._writing():
                written = os.write(file, line)
                if written < len(line):
                    raise OSError(28, "No space left on device")
                os.fsync(file)
        except FedproofError:
            os.ftruncate(file, size)
            raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FedproofError(
                f"the privacy ledger cannot be written ({error.strerror}): nothing was released."
            ) from None

    def _read(self) -> list[tuple[Entry, str]]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise FedproofError(f"the privacy ledger cannot be read ({error.strerror}).") from None
        if content and not content.endswith(b"\n"):
            raise DamagedLedgerError(
                "the privacy ledger ends in a torn line: look at it with 'fedproof ledger PATH', "
                "and cut it off with 'fedproof ledger PATH --repair'."
            )
        found: list[tuple[Entry, str]] = []
        last = _FIRST
        for number, line in enumerate(content.splitlines(), 1):
            entry, last = _parse(line, number, last)
            found.append((entry, last))
        self._check_head([digest for _, digest in found])
        return found

    def _check_head(self, digests: Sequence[str]) -> None:
        """Refuse a ledger that is shorter, or another one, than its head says.

        It may be one line longer, if its writer ended between the two.
        """
        try:
            number, digest = self._head.read_text(encoding="ascii").split()
            count = int(number)
        except FileNotFoundError:
            count, digest = 0, ""
        except (OSError, ValueError):
            raise DamagedLedgerError(_edited("its head cannot be read")) from None
        cut = len(digests) < count or (count and digests[count - 1] != digest)
        if cut or len(digests) > count + 1:
            raise DamagedLedgerError(_edited("it does not end as its head says"))


def _line(number: int, entry: Entry, last: str) -> tuple[bytes, str]:
    spend = entry.spend
    body: dict[str, Any] = {
        "number": number,
        "unit": entry.unit,
        "sigma": spend.sigma,
        "rate": spend.rate,
        "steps": spend.steps,
        "facts": dict(entry.facts),
        "before": last,
    }
    body |= {key: value for key in _OPTIONAL if (value := getattr(spend, key))}
    digest = _digest(body)
    return json.dumps({**body, "hash": digest}, sort_keys=True).encode() + b"\n", digest


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _parse(line: bytes, number: int, last: str) -> tuple[Entry, str]:
    try:
        body = json.loads(line)
        digest = body.pop("hash")
        good = body["number"] == number and body["before"] == last and digest == _digest(body)
        known = {key: body[key] for key in _OPTIONAL if key in body}
        spend = Spend(float(body["sigma"]), float(body["rate"]), int(body["steps"]), **known)
        entry = Entry(str(body["unit"]), spend, dict(body["facts"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise DamagedLedgerError(_edited(f"line {number} is not what was written"))
    return entry, digest


def _edited(how: str) -> str:
    return f"the privacy ledger was edited ({how}): put back the file as it was."
