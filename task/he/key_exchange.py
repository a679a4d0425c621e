"""How the leader's key reaches the other clients through a server that must not read it.

Each client offers a fresh X25519 key, signed with its Ed25519 identity key. The leader encrypts the
secret context for each of them (X25519 with a fresh key of its own, HKDF-SHA256 over the whole
transcript, AES-256-GCM) and signs what it sends. All is bound to run, sender and receiver, so the
server can neither replace a key nor hand one client's message, or one from another run, to
somebody else. Who has which identity key must be known beforehand: it is what all rests on.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from conf.errors import FedproofError
from task.identity import PUBLIC, SIGNATURE, Identity, bound, is_signed

_NONCE = 12
_OFFER, _SEALED = b"fedproof he offer 1", b"fedproof he sealed 1"


def offer(run: str, client: str, identity: Identity) -> tuple[X25519PrivateKey, bytes]:
    """Return a client's fresh key for one run, to keep, and the signed public part, to send."""
    key = X25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    return key, public + identity.sign(_OFFER, run, client, public)


def seal(
    secret: bytes,
    route: tuple[str, str, str],
    identity: Identity,
    offered: bytes,
    receiver_identity: bytes,
) -> bytes:
    """Encrypt the secret context for one client.

    Parameters
    ----------
    secret : bytes
        `KeyRing.data`.
    route : (str, str, str)
        Run, sender (the leader) and receiver.
    identity : Identity
        The sender's.
    offered : bytes
        What the receiver's `offer` made.
    receiver_identity : bytes
        The receiver's public key, as known beforehand.

    Raises
    ------
    FedproofError
        If the offer is not the receiver's own for this run.
    """
    run, _, receiver = route
    public, signature = offered[:PUBLIC], offered[PUBLIC:]
    fresh = X25519PrivateKey.generate()
    mine, nonce = fresh.public_key().public_bytes_raw(), os.urandom(_NONCE)
    try:
        _require(is_signed(receiver_identity, signature, _OFFER, run, receiver, public))
        cipher = _cipher(fresh, public, bound(_SEALED, *route, public, mine))
    except ValueError:
        raise FedproofError(
            f"the key offered for '{receiver}' is not signed by its identity key for this run, so "
            "it may be the server's own: no encryption key was sent to it."
        ) from None
    body = mine + nonce + cipher.encrypt(nonce, secret, bound(*route))
    return body + identity.sign(_SEALED, *route, public, body)


def unseal(
    sealed: bytes,
    route: tuple[str, str, str],
    key: X25519PrivateKey,
    sender_identity: bytes,
) -> bytes:
    """Return the secret context that `seal` encrypted for this client.

    Parameters
    ----------
    sealed : bytes
        From the server.
    route : (str, str, str)
        Run, sender and receiver, as this client knows them.
    key : X25519PrivateKey
        What this client's `offer` kept.
    sender_identity : bytes
        The leader's public key, as known beforehand.

    Raises
    ------
    FedproofError
        If the message was altered, is for somebody else, or not from the leader.
    """
    public = key.public_key().public_bytes_raw()
    body, signature = sealed[:-SIGNATURE], sealed[-SIGNATURE:]
    mine, nonce = body[:PUBLIC], body[PUBLIC : PUBLIC + _NONCE]
    try:
        _require(is_signed(sender_identity, signature, _SEALED, *route, public, body))
        cipher = _cipher(key, mine, bound(_SEALED, *route, public, mine))
        return cipher.decrypt(nonce, body[PUBLIC + _NONCE :], bound(*route))
    except (InvalidTag, ValueError):
        run, sender, receiver = route
        raise FedproofError(
            f"the encryption key for '{receiver}' in run {run} is not what the leader '{sender}' "
            "sent, or was sent to another client: it was refused, and nothing was encrypted."
        ) from None


def _require(signed: bool) -> None:
    if not signed:
        raise ValueError("not signed")


def _cipher(mine: X25519PrivateKey, theirs: bytes, transcript: bytes) -> AESGCM:
    """Return the cipher of the key that two parties share, bound to all they said."""
    shared = mine.exchange(X25519PublicKey.from_public_bytes(theirs))
    return AESGCM(HKDF(SHA256(), 32, salt=None, info=transcript).derive(shared))
