"""``fedproof deploy check``: can this silo take part, in plain words, before any run."""

from __future__ import annotations

import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.hazmat.primitives.serialization.ssh import load_ssh_private_key

from conf.compose import compose
from conf.digest import code_digest
from conf.errors import FedproofError
from task.audit import AuditLog
from task.identity import Identity, read_roster
from task.privacy.ledger import Ledger
from task.rules import Rules, read_rules

SKEW = 60.0
"""Seconds by which clocks may differ."""
SOON = 30
"""Days before its end from which on a certificate is worth a word."""


class Check:
    """All that can be looked at from a silo.

    Parameters
    ----------
    kit : Path
        Folder that ``fedproof deploy init`` wrote.
    data : Path
        The silo's data.
    superlink : str or None
        ``HOST:PORT``; the kit's unless given.
    """

    def __init__(self, kit: Path, data: Path, superlink: str | None) -> None:
        self._kit = kit
        self._data = data
        self._superlink = superlink
        self._rules: Rules | None = None

    def run(self) -> bool:
        """Print a line for each thing that is looked at; return whether all are fine."""
        looks: dict[str, Callable[[], str]] = {
            "policy": self._policy, "data": self._schema, "keys": self._keys,
            "TLS": self._server, "ledger": self._books, "code": self._code,
        }  # fmt: skip
        good = True
        for name, look in looks.items():
            try:
                print(f"ok     {name}: {look()}")
            except FedproofError as error:
                good = False
                print(f"WRONG  {name}: {error}")
        return good

    def _policy(self) -> str:
        self._rules = read_rules(self._kit / "policy.yaml")
        if not self._rules.tasks:
            raise FedproofError("policy.yaml allows no task: name those that may run.")
        return f"allows {', '.join(self._rules.tasks)}" + (
            ", but is a dry run" if self._rules.dry_run else ""
        )

    def _schema(self) -> str:
        from task.source import DataSource, load_task
        from task.tables import column_names

        (task, *_) = (self._rules.tasks if self._rules else ()) or ("healthcare",)
        settings = compose((f"task={task}",))
        if settings.task.target is None and task == "tabular":
            used = column_names(self._data)
            return f"{len(used)} columns: {', '.join(used[:8])}"
        load_task(settings)
        source = DataSource(settings, self._data)
        sizes = [source.size(client) for client in source.clients]
        train, test = (sum(side) for side in zip(*sizes, strict=True))
        return f"{task} reads {train + test} rows, {test} of them held out"

    def _keys(self) -> str:
        path = self._kit / "node.key"
        for secret in (path, self._kit / "identity.key"):
            if not secret.is_file():
                raise FedproofError(f"there is no {secret}: run `fedproof deploy key {self._kit}`.")
            if stat.S_IMODE(secret.stat().st_mode) & 0o077:
                raise FedproofError(f"others may read {secret}: chmod 600 {secret}.")
        Identity.read(self._kit / "identity.key")
        try:
            key = load_ssh_private_key(path.read_bytes(), None)
        except ValueError:
            raise FedproofError(f"{path} is no key of OpenSSH's format.") from None
        assert isinstance(key, EllipticCurvePrivateKey)
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        if (self._kit / "node.pub").read_bytes().split()[:2] != public.split():
            raise FedproofError("node.pub is not the public half of node.key.")
        roster = self._kit / "roster"
        known = f"{len(read_roster(roster))} silos" if roster.is_file() else "no roster yet"
        return f"private to this user, {known}"

    def _server(self) -> str:
        endpoint = self._superlink or (self._kit / "superlink").read_text(encoding="utf-8").strip()
        with _mended(endpoint):
            context = ssl.create_default_context(cafile=self._kit / "ca.crt")
            host, _, port = endpoint.rpartition(":")
            host = host.strip("[]")
            with (
                socket.create_connection((host, int(port)), timeout=10) as plain,
                context.wrap_socket(plain, server_hostname=host) as secured,
            ):
                certificate = x509.load_der_x509_certificate(secured.getpeercert(True) or b"")
                skew = _skew(secured, host)
        if abs(skew) > SKEW:
            raise FedproofError(f"this clock and the SuperLink's are {skew:.0f} s apart: set it.")
        days = (certificate.not_valid_after_utc - datetime.now(UTC)).days
        soon = ", renew it soon" if days < SOON else ""
        return f"{endpoint} is who it says, for {days} more days{soon}; clocks agree"

    def _books(self) -> str:
        entries = [len(Ledger(p).entries()) for p in (self._kit / "ledgers").glob("*.jsonl")]
        receipts = AuditLog(self._kit / "audit.jsonl").receipts()
        return f"{sum(entries)} releases in {len(entries)} ledgers, {len(receipts)} messages logged"

    def _code(self) -> str:
        mine = code_digest()
        if self._rules is not None and self._rules.code and mine not in self._rules.code:
            raise FedproofError(f"this installation is {mine}, which policy.yaml does not accept.")
        return mine


def _skew(secured: ssl.SSLSocket, host: str) -> float:
    """Return by how many seconds this clock is ahead of the server's, as its answers are dated."""
    secured.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = secured.recv(65536).decode("latin-1")
    for line in answer.split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "date":
            return time.time() - parsedate_to_datetime(value.strip()).timestamp()
    return 0.0


@contextmanager
def _mended(endpoint: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise FedproofError(
            f"{endpoint} does not prove who it is ({error.verify_message}): do not go on."
        ) from None
    except ssl.SSLError:
        raise FedproofError(f"{endpoint} does not speak TLS: do not go on.") from None
    except (OSError, ValueError) as error:
        raise FedproofError(
            f"{endpoint} cannot be reached ({error}): start the SuperLink, or open the way to it."
        ) from None
