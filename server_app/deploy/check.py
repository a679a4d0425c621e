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
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.hazmat.primitives.serialization.ssh import load_ssh_private_key

from conf.compose import compose
from conf.digest import code_digest, settings_digest
from conf.errors import FedproofError
from conf.schema import Settings
from server_app.deploy.disclosed import disclosures
from task.audit import AuditLog
from task.identity import Identity, read_roster
from task.privacy.ledger import Ledger
from task.privacy.policy import Policy, mechanism_of
from task.rules import Rules, require_columns
from task.secure import protection_of
from task.source import DataSource, load_task
from task.table_checks import check_own_table
from task.tables import quoted

_PRIVATE = ("node.key", "identity.key", "state", "ledgers", "audit.jsonl", "home")
"""What nobody but the silo's own user may read."""
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
    run : tuple of str or None
        Overrides of a run; those of the kit's ``experiment`` unless given.
    """

    def __init__(
        self, kit: Path, data: Path, superlink: str | None, run: tuple[str, ...] | None = None
    ) -> None:
        self._kit = kit
        self._data = data
        self._superlink = superlink
        self._overrides = run

    def run(self) -> bool:
        """Print a line for each thing that is looked at; return whether all are fine."""
        looks: dict[str, Callable[[], str]] = {
            "policy": self._policy, "data": self._schema, "run": self._run, "keys": self._keys,
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

    @cached_property
    def _asked(self) -> Policy:
        return Policy.of({"policy": str(self._kit / "policy.yaml"), "data": str(self._data)})

    @property
    def _rules(self) -> Rules:
        assert self._asked.rules is not None
        return self._asked.rules

    def _policy(self) -> str:
        if not self._rules.tasks:
            raise FedproofError("policy.yaml allows no task: name those that may run.")
        return f"allows {', '.join(self._rules.tasks)}" + (
            ", but is a dry run" if self._rules.dry_run else ""
        )

    def _schema(self) -> str:
        """Look at the data by the policy alone; then read them as the run would."""
        found = check_own_table(self._data, self._asked)
        settings = self._settings()
        source = DataSource(settings, self._data, self._name, whole=self._asked.one_client)
        rows = len(source.pool.rows)
        said = f"{settings.task.name} reads {rows} rows"
        if not found:
            return said
        return f"{said}; plain runs would tell all values of {quoted(found)}: see task.drop"

    def _run(self) -> str:
        """Say which rule refuses what of the run, or else what it would tell the server."""
        settings = self._settings()
        reasons = [str(refusal) for refusal in self._asked.refusals(settings)]
        try:
            mechanism_of(settings)
            protection_of(settings)
            used = load_task(settings).columns(self._data)
            require_columns(self._rules, settings.task.name, used)
        except FedproofError as error:
            reasons.append(str(error))
        if reasons:
            raise FedproofError("\n       ".join(reasons))
        told = disclosures(settings, self._asked, self._data, self._name)
        lines = [f"allowed, {settings_digest(settings)}; it would tell the server"]
        lines += [f"{what}: {how}" for what, how in told]
        return "\n       ".join(lines)

    def _settings(self) -> Settings:
        """Return the settings of the run that is to be checked.

        Raises
        ------
        FedproofError
            If there are no such settings.
        """
        told, path = self._overrides, self._kit / "experiment"
        if told is None:
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            lines = (line.strip() for line in text.splitlines())
            told = tuple(line for line in lines if line and not line.startswith("#"))
        if not told and self._rules.tasks:
            told = (f"task={self._rules.tasks[0]}",)
        return compose(told)

    @property
    def _name(self) -> str:
        """Return the silo's name as a client, as start.sh gives it."""
        return self._kit.resolve().name

    def _keys(self) -> str:
        path = self._kit / "node.key"
        for secret in (path, self._kit / "identity.key"):
            if not secret.is_file():
                raise FedproofError(f"there is no {secret}: run `fedproof deploy key {self._kit}`.")
        for name in (".", *_PRIVATE):
            private = self._kit / name
            if private.exists() and stat.S_IMODE(private.stat().st_mode) & 0o077:
                raise FedproofError(f"others may read {private}: chmod go-rwx {private}.")
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
        audit = AuditLog(self._kit / "audit.jsonl")
        receipts = audit.receipts()
        audit.require_ledgers(self._kit / "ledgers")
        return f"{sum(entries)} releases in {len(entries)} ledgers, {len(receipts)} messages logged"

    def _code(self) -> str:
        mine = code_digest()
        if self._rules.code and mine not in self._rules.code:
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
