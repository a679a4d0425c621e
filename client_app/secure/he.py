"""Homomorphic encryption on a node: clients share a key, encrypt answers, and open sums of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from client_app.secure.box import Place, first_time
from client_app.secure.requests import Request, Secrets, answer_each, known_clients, told_of
from client_app.secure.revealed import Question
from client_app.secure.trust import Trust
from conf.errors import FedproofError
from task.arrays import array_of, record_of, values_of
from task.he import answers
from task.he.key_exchange import offer, seal, unseal
from task.he.keyring import KeyRing, ring_of
from task.layouts import Layout
from task.secure.he import HE
from task.secure.kinds import kind_of
from task.wire import WireError, blob, config, listed


class HEClients:
    """The clients of one node in one run.

    Parameters
    ----------
    protection : HE
        By the node's own settings.
    trust : Trust
        The clients' identity keys, and those that they know.
    place : Place
        Where they keep their secrets.

    Raises
    ------
    FedproofError
        If they are to know whom they deal with, and have no roster.
    """

    def __init__(self, protection: HE, trust: Trust, place: Place) -> None:
        self._terms = protection.terms
        self._trust = trust
        self._place = place
        self._run = place.run
        self._roster = known_clients(
            trust, self._terms.pinned, "aggregation.identities=pinned", "unverified"
        )

    name = "he"
    noise = None

    def seat(self, client: str, told: ConfigRecord) -> None:
        """Return nothing: encrypted sums have no sessions."""
        del client, told

    def answer(self, client: str, told: RecordDict) -> RecordDict:
        """Answer what the server asks of a client, each request for itself."""
        requests: dict[str, Request] = {
            "offer": self._offer,
            "seal": self._seal,
            "decrypt": self._decrypt,
        }
        simulated = self._trust.simulated
        return answer_each(requests, self._place, (client, told), simulated=simulated)

    def hidden(
        self,
        client: str,
        question: Question,
        update: Tensor,
        weight: int,
        figures: Mapping[str, Sequence[float]],
    ) -> tuple[RecordDict, None]:
        """Return what a client sends: its answer, encrypted, and what its figures are called.

        Parameters
        ----------
        client : str
            Whose it is.
        question : Question
            The message that it answers: with the key, where the client may not have it.
        update : Tensor of float, shape (size,)
            May be empty.
        weight : int
            That the update counts with.
        figures : mapping of str to floats
            What is summed besides.

        Raises
        ------
        FedproofError
            If nothing may be sent.
        """
        kind, number = question.kind, question.number
        with self._place.opened(client) as secrets:
            if "sealed" in question.exchange:
                self._unseal(client, question.exchange, secrets)
            ring = self._ring(client, secrets)
            if not first_time(secrets, kind, number):
                raise FedproofError(
                    f"client '{client}' has encrypted an answer for round {number} ({kind}) or "
                    "a later one before, and sums of other cohorts could show the difference: it "
                    "sends nothing."
                )
            layout, parts = answers.encrypted(self._terms, ring, update, weight, figures)
            secrets.setdefault("encrypted", {})[kind] = [number, dict(layout.pack())]
        return RecordDict({"encrypted": _record(parts), "layout": layout.pack()}), None

    def _offer(self, client: str, secrets: Secrets, told: RecordDict) -> RecordDict:
        """Offer a fresh key to be sent the encryption key under; name that one, if it is there."""
        del told
        identity = self._trust.identity(client)
        key, offered = offer(self._run, client, identity)
        secrets["offered"] = key.private_bytes_raw().hex()
        name = self._ring(client, secrets).name if "ring" in secrets else b""
        answer = ConfigRecord({"offer": offered, "identity": identity.public, "key": name})
        return RecordDict({"offer": answer})

    def _seal(self, client: str, secrets: Secrets, told: RecordDict) -> RecordDict:
        """Lead: make the encryption key unless it is there, and encrypt it for the others."""
        asked = config(told, "seal")
        receivers = listed(asked, "clients", str)
        offers, claimed = listed(asked, "offers", bytes), listed(asked, "identities", bytes)
        identity = self._trust.identity(client)
        if "ring" not in secrets:
            _keep(secrets, KeyRing.create(self._terms.parameters).data)
        ring = self._ring(client, secrets)
        sealed: dict[str, bytes] = {}
        refused: dict[str, str] = {}
        for receiver, offered, public in zip(receivers, offers, claimed, strict=True):
            try:
                known = self._known(receiver, public)
                route = (self._run, client, receiver)
                sealed[receiver] = seal(ring.data, route, identity, offered, known)
            except FedproofError as error:
                simulated = self._trust.simulated
                refused[receiver] = told_of(error, client, "seal", simulated=simulated)
        answer = ConfigRecord(
            {
                "key": ring.name,
                "identity": identity.public,
                "to": list(sealed),
                "sealed": list(sealed.values()),
                "not": list(refused),
                "why": list(refused.values()),
            }
        )
        return RecordDict({"seal": answer})

    def _unseal(self, client: str, told: ConfigRecord, secrets: dict[str, Any]) -> None:
        """Take the encryption key that the leader sent."""
        if "offered" not in secrets:
            raise FedproofError(
                f"client '{client}' was sent an encryption key that it has not asked for: it was "
                "refused, and nothing was encrypted."
            )
        key = X25519PrivateKey.from_private_bytes(bytes.fromhex(secrets.pop("offered")))
        leader = str(told["leader"])
        known = self._known(leader, blob(told, "identity"))
        data = unseal(blob(told, "sealed"), (self._run, leader, client), key, known)
        ring_of(data, self._terms.parameters)
        _keep(secrets, data)

    def _decrypt(self, client: str, secrets: Secrets, told: RecordDict) -> RecordDict:
        """Open the sum of a round, once."""
        asked, arrays = config(told, "decrypt"), told.get("sums")
        kind, number = kind_of(str(asked["purpose"])), int(str(asked["number"]))
        layout = Layout.unpack(asked)
        if not isinstance(arrays, ArrayRecord):
            raise WireError("the message holds no sums")
        ring = self._ring(client, secrets)
        if secrets.get("encrypted", {}).get(kind) != [number, dict(layout.pack())]:
            raise FedproofError(
                f"client '{client}' has encrypted no such answer last in round {number} "
                f"({kind}): it opens no sum that is none of its own."
            )
        if not first_time(secrets, f"decrypt {kind}", number):
            raise FedproofError(
                f"client '{client}' has opened a sum of round {number} ({kind}) or a later "
                "one before, and two could show the difference: it opens no other."
            )
        sums = {name: values_of(array) for name, array in arrays.items()}
        found = answers.opened(self._terms, ring, layout, sums)
        facts = ConfigRecord({"count": found.count, "weight": found.weight})
        means = {"mean": array_of(found.mean), "figures": array_of(found.figures)}
        return RecordDict({"decrypt": facts, "opened": record_of(means)})

    def _known(self, client: str, claimed: bytes) -> bytes:
        """Return the public key of a client: the roster's, or else what the server says it is.

        Raises
        ------
        FedproofError
            If the roster does not have it.
        """
        if self._roster is None:
            return claimed
        try:
            return self._roster[client]
        except KeyError:
            raise FedproofError(
                f"'{client}' is not in this node's roster: the encryption key is neither sent to "
                "nor taken from it."
            ) from None

    def _ring(self, client: str, secrets: Mapping[str, Any]) -> KeyRing:
        if "ring" not in secrets:
            raise FedproofError(f"client '{client}' was not sent this run's encryption key.")
        return ring_of(base64.b64decode(secrets["ring"]), self._terms.parameters)


def _keep(secrets: dict[str, Any], data: bytes) -> None:
    secrets["ring"] = base64.b64encode(data).decode("ascii")


def _record(parts: answers.Parts) -> ArrayRecord:
    return record_of({name: array_of(part) for name, part in parts.items()})
