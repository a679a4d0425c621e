"""Which ledger a client's releases are written into, and whether it is the newest one.

A silo has one for its data source, whatever its clients and runs are called. A node that only
simulates has one for each client.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from client_app.site import Site
from conf.digest import plain
from task.audit import AuditLog
from task.privacy.accounting import Spend
from task.privacy.ledger import Entry, Head, Ledger

PIN = "ledger-head"
"""Of a node config: where the ledger ended when its operator looked."""
Allows = Callable[[Sequence[Entry]], object]


@dataclass(frozen=True)
class ClientLedger:
    """The ledger of a client, which other clients of its source share.

    Attributes
    ----------
    ledger : Ledger
        The file.
    partition, client : str
        Which rows of the source are the client's, as `Entry` says.
    site : Site
        Whose it is.
    """

    ledger: Ledger
    partition: str
    client: str
    site: Site

    def mine(self) -> list[Entry]:
        """Return the entries on the client's rows in this partition."""
        return [entry for entry in self.ledger.entries() if self.covers(entry)]

    def covers(self, entry: Entry) -> bool:
        """Tell whether an entry is on the client's rows in this partition."""
        return entry.rows_of == (self.partition, self.client)

    def is_of_others(self, entry: Entry) -> bool:
        """Tell whether an entry is on none of the client's rows."""
        return entry.partition == self.partition and entry.client != self.client

    def entry(self, unit: str, spend: Spend, facts: Mapping[str, Any]) -> Entry:
        """Return an entry on the client's rows."""
        return Entry(unit, spend, facts, self.partition, self.client)

    def spend(self, entry: Entry, allows: Allows) -> None:
        """Append an entry, durably, if `allows` lets all entries of the source pass.

        Raises
        ------
        FedproofError
            As `Ledger.spend`, or if the source was joined to another one meanwhile.
        """

        def still_allows(entries: Sequence[Entry]) -> None:
            self._require_current()
            allows(entries)

        self._require_current()
        self.ledger.spend(entry, still_allows)

    def sealed_head(self) -> str | None:
        """Return where the ledger ends, as a silo tells it to others; None for a simulation."""
        if self.site.data is None:
            return None
        return str(self.ledger.head().sealed(self.site.source_secret))

    def _require_current(self) -> None:
        if self.site.data is not None:
            self.site.sources.require_current(self.ledger.path.stem)


def ledger_of(site: Site, client: str) -> ClientLedger:
    """Return the ledger of a client.

    Raises
    ------
    FedproofError
        If it is not known whose rows the silo's data are.
    """
    if site.data is None:
        # Ids are any text; what of it a file name cannot hold is told apart by a digest.
        name = re.sub(r"[^0-9A-Za-z_-]", "_", client)[:40]
        digest = hashlib.sha256(client.encode()).hexdigest()[:12]
        return ClientLedger(Ledger(site.ledgers / f"{name}-{digest}.jsonl"), "", "", site)
    found = site.source_state
    ledger = Ledger(site.ledgers / f"{found.source}.jsonl")
    return ClientLedger(ledger, _partition(site, found.number), client, site)


def _partition(site: Site, number: int) -> str:
    """Name what deals a silo's rows to its clients: task, settings, the operator's word, state.

    Two clients of one name have no row in common. Where any of it differs, they may have.
    """
    assert site.data is not None
    task = plain(site.settings)["task"]
    task.pop("path")
    told = json.dumps([task, number, site.name, site.data.stem, site.policy.one_client])
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    column = f" by {task['client']}" if task["client"] else ""
    return f"{task['name']}{column} {digest}"


def ledger_heads(site: Site) -> dict[str, str]:
    """Return where the ledger of a silo's data ends, by its path; nothing if there is none.

    Raises
    ------
    FedproofError
        If the ledger is damaged.
    """
    if not _keeps_ledger(site):
        return {}
    ledger = Ledger(site.ledgers / f"{site.source_id}.jsonl")
    head = ledger.head()
    return {str(ledger.path.resolve()): str(head)} if head.number else {}


def require_newest(site: Site, audit: AuditLog | None, config: Mapping[str, Any]) -> None:
    """Refuse to answer on the account of a ledger that was put back, or lost.

    Parameters
    ----------
    site : Site
        Whose ledger must go on from where it ended when its audit log was last written, and from
        the head that its operator pinned.
    audit : AuditLog or None
        The log.
    config : mapping
        Of the node.

    Raises
    ------
    FedproofError
        If a ledger is older than that, or damaged.
    """
    if not _keeps_ledger(site):
        return
    if audit is not None:
        audit.require_ledgers(site.ledgers)
    if PIN in config:
        pinned = Head.read(str(config[PIN]))
        ledger = Ledger(site.ledgers / f"{site.source_id}.jsonl")
        ledger.require_from(pinned, f"--node-config {PIN}", site.source_secret)


def _keeps_ledger(site: Site) -> bool:
    return site.data is not None and site.settings.privacy.name != "none"
