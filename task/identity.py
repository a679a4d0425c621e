"""Who clients are to each other: keys that sign, and a roster of them that nobody else can change.

What clients send each other passes through a server that they need not trust. Each has an Ed25519
key of its own; a silo's operator pins the public keys of all silos in a file, the roster, whose
fingerprint the operators compare by other means.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from conf.errors import FedproofError
from task.atomic import make_folder

PUBLIC, SIGNATURE = 32, 64
"""Bytes of a public key and of a signature."""
Roster = Mapping[str, bytes]
"""Public keys by client."""


def bound(*parts: str | bytes) -> bytes:
    """Join parts so that no other parts give the same bytes."""
    raw = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(len(part).to_bytes(8, "big") + part for part in raw)


class Identity:
    """A client's signing key.

    Parameters
    ----------
    key : Ed25519PrivateKey, optional
        A new one unless given.
    """

    def __init__(self, key: Ed25519PrivateKey | None = None) -> None:
        self._key = key or Ed25519PrivateKey.generate()
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def read(cls, path: Path) -> Identity:
        """Read a key that `write` wrote.

        Raises
        ------
        FedproofError
            If there is none.
        """
        try:
            return cls(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text("ascii"))))
        except (OSError, ValueError):
            raise FedproofError(
                f"{path} holds no identity key: make one with `fedproof identity {path}`."
            ) from None

    def write(self, path: Path) -> None:
        """Write the key to a new file that only its owner may read.

        Raises
        ------
        FileExistsError
            If there is a file: keys are never replaced by accident.
        """
        make_folder(path.parent)
        # Under another name first: who finds the file finds the whole key.
        partial = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(file, "w", encoding="ascii") as stream:
                stream.write(self._key.private_bytes_raw().hex() + "\n")
            os.link(partial, path)
        finally:
            partial.unlink()

    def sign(self, *parts: str | bytes) -> bytes:
        """Return the signature of some parts; the first one says what it is for."""
        return self._key.sign(bound(*parts))


def is_signed(public: bytes, signature: bytes, *parts: str | bytes) -> bool:
    """Return whether the owner of a public key signed these parts."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, bound(*parts))
    except (InvalidSignature, ValueError):
        return False
    return True


def read_roster(path: Path) -> dict[str, bytes]:
    """Read a roster: a line ``KEY NAME`` for each client; # begins a remark.

    Raises
    ------
    FedproofError
        If there is none, or a line says something else, or two say something about one client or
        of one key: who has it would count as two clients.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise FedproofError(f"{path} is no roster that can be read: give its file.") from None
    found: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        key, _, name = line.strip().partition(" ")
        if not key or key.startswith("#"):
            continue
        try:
            public = bytes.fromhex(key)
        except ValueError:
            public = b""
        if len(public) != PUBLIC or not name.strip() or name.strip() in found:
            raise FedproofError(
                f"{path}, line {number}: a roster has one line per client, its public key (64 "
                "hexadecimal digits), a space and its name."
            )
        if public in found.values():
            raise FedproofError(
                f"{path}, line {number}: another client has the same key: each needs its own "
                "(`fedproof identity KEY NAME`)."
            )
        found[name.strip()] = public
    return found


def fingerprint(roster: Roster) -> str:
    """Return what tells two rosters apart, for people to compare."""
    parts = [part for name in sorted(roster) for part in (name, roster[name])]
    return hashlib.sha256(bound("fedproof roster 1", *parts)).hexdigest()[:32]
