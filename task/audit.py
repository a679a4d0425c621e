"""What a silo was asked, what it decided, what left: a `task.hash_chain`, a line per message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from task.hash_chain import Body, Chain
from task.privacy.carried import set_aside
from task.privacy.ledger import Head, Ledger

ANSWERED, REFUSED = "answered", "refused"


@dataclass
class Receipt:
    """One message, filled in while it is answered.

    Attributes
    ----------
    time : float
        When it came, in seconds since 1970.
    message : str
        Its type.
    sender : mapping
        What is known of who sent it: Flower's run, account, application and its hash, as the
        SuperLink tells them.
    run : str
        The run's name for itself; empty if it has none that can be read.
    round : int or None
        Of which round it speaks.
    decision, reason : str
        ``answered`` or ``refused``, and why.
    rows : dict
        Rows that were used, by client.
    errors : dict
        Clients that did not answer, and why.
    left : dict
        What left: ``bytes``, ``sha256``, ``norm`` of all arrays, ``epsilon`` that the client's
        ledger stands at.
    ledgers : dict
        Where each privacy ledger ends that this log knows of, by its path: ``NUMBER:HASH``. A line
        says it of all, so that the last one is enough to tell an older ledger.
    """

    time: float
    message: str
    sender: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""
    round: int | None = None
    decision: str = REFUSED
    reason: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    left: dict[str, Any] = field(default_factory=dict)
    ledgers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, body: Body) -> Self:
        """Read a line."""
        return cls(**{name: body[name] for name in cls.__dataclass_fields__ if name in body})


class AuditLog:
    """An audit log.

    Parameters
    ----------
    path : Path
        Made, with its folder, when the first line is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._chain = Chain(path, "the audit log", "fedproof audit-log", "nothing was sent")

    def write(self, receipt: Receipt) -> None:
        """Append a line, durably.

        Raises
        ------
        FedproofError
            If the log is damaged at its end, in use, or cannot be written.
        """
        mine = asdict(receipt)
        self._chain.add(
            lambda last: {**mine, "ledgers": {**last.get("ledgers", {}), **receipt.ledgers}}
        )

    def ledgers(self) -> dict[str, Head]:
        """Return where each privacy ledger ended when it was last written of here, by its path.

        Raises
        ------
        FedproofError
            If the log is damaged at its end, or cannot be read.
        """
        last = self._chain.last().body
        return {str(path): Head.read(str(head)) for path, head in last.get("ledgers", {}).items()}

    def require_ledgers(self, folder: Path) -> None:
        """Refuse ledgers of a folder that are older than this log, or gone.

        Raises
        ------
        FedproofError
            If there are such, or the log or one of them is damaged.
        """
        for name, head in self.ledgers().items():
            path = Path(name)
            if path.parent == folder.resolve():
                found = path if path.exists() else set_aside(path)
                Ledger(found).require_from(head, "the audit log")

    def receipts(self) -> list[Receipt]:
        """Return all lines, checked.

        Raises
        ------
        DamagedChainError
            If the log is torn, edited or cut.
        """
        return [self._read(n, body) for n, body in enumerate(self._chain.bodies(), 1)]

    def _read(self, number: int, body: Body) -> Receipt:
        try:
            return Receipt.of(body)
        except TypeError:
            raise self._chain.damaged(f"line {number} is no receipt") from None

    def trained(self, run: str, clients: Collection[str]) -> int:
        """Return how often training of one of these clients left in a run: most of any of them.

        Raises
        ------
        DamagedChainError
            If the log is torn, edited or cut.
        """
        times: Counter[str] = Counter()
        for receipt in self.receipts():
            if receipt.run == run and receipt.message.startswith("train"):
                answered = receipt.rows.keys() - receipt.errors.keys()
                times.update(answered if receipt.decision == ANSWERED else ())
        return max((times[client] for client in clients), default=0)

    def repair(self) -> int:
        """Cut off a last line that was not written to its end; return how many bytes that were."""
        return self._chain.repair()
