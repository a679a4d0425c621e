"""How a key that only clients may have gets from one of them to all, through the server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from flwr.app import ConfigRecord, RecordDict

from conf.errors import FedproofError
from server_app.secure.asking import Parts, answered
from task.shown import shown
from task.wire import WireError, blob, listed

log = logging.getLogger("flwr")
T = TypeVar("T")
Ask = Callable[[Parts], dict[str, RecordDict | str]]
_LEADERS = 3
"""Clients that are asked in turn before a round goes on without those that lack the key."""


@dataclass(frozen=True)
class _Offer:
    public: bytes
    identity: bytes
    key: bytes


class KeyDelivery:
    """Who has the run's key, and what is on its way to the others.

    Two exchanges: all that may lack it offer keys of their own, and one that has the run's key, or
    else makes it, encrypts it under those. What comes of that goes out with the next message.

    Parameters
    ----------
    ask : callable
        Sends clients requests; returns each one's answer, or why there is none.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._name = b""
        self._holders: set[str] = set()
        self._pending: dict[str, ConfigRecord] = {}

    def prepare(self, clients: Iterable[str]) -> dict[str, str]:
        """Do what is needed for clients to get the key; return why some cannot."""
        failed: dict[str, str] = {}
        offers = self._offers([c for c in sorted(clients) if not self.reaches(c)], failed)
        if not self._name:
            self._name = next((o.key for o in offers.values() if o.key), b"")
        there = {c for c, offer in offers.items() if self._name and offer.key == self._name}
        self._holders |= there
        lacking = {c: offer for c, offer in offers.items() if c not in there}
        if lacking:
            self._seal(lacking, failed)
        return failed

    def reaches(self, client: str) -> bool:
        """Return whether a client has the key, or gets it with its next message."""
        return client in self._holders or client in self._pending

    def told(self, client: str) -> ConfigRecord:
        """Return what a client's next message says of the key: nothing, unless it lacks it."""
        return self._pending.get(client, ConfigRecord())

    def arrived(self, client: str) -> None:
        """Note that a client encrypted with the key."""
        self._pending.pop(client, None)
        self._holders.add(client)

    def lost(self, client: str) -> None:
        """Note that a client may not have the key: it is offered again."""
        self._pending.pop(client, None)
        self._holders.discard(client)

    def doubt(self) -> None:
        """Note that clients may have different keys: all are asked which."""
        self._pending.clear()
        self._holders.clear()

    def _offers(self, clients: list[str], failed: dict[str, str]) -> dict[str, _Offer]:
        if not clients:
            return {}
        answers = self._ask({c: RecordDict({"offer": ConfigRecord()}) for c in clients})
        offers = {}
        for client in clients:
            try:
                told = answered(answers, client, "offer")
                offers[client] = _Offer(*(blob(told, key) for key in ("offer", "identity", "key")))
            except WireError as error:
                failed[client] = str(error)
        return offers

    def _seal(self, lacking: Mapping[str, _Offer], failed: dict[str, str]) -> None:
        """Let a client that has the key, or else one that makes it, encrypt it for others."""
        reasons = []
        for leader in [*sorted(self._holders), *sorted(lacking)][:_LEADERS]:
            receivers = {c: offer for c, offer in lacking.items() if c != leader}
            try:
                self._lead(leader, receivers, failed)
                return
            except (FedproofError, WireError) as error:
                log.warning("'%s' sent no encryption key: %s", leader, error)
                reasons.append(f"'{leader}': {error}")
                self._holders.discard(leader)
        if not self._holders:
            # Nobody is left that has it: the next leader makes another one.
            self._name = b""
            self._pending.clear()
        failed |= dict.fromkeys(lacking, f"no client sent it the key ({'; '.join(reasons)})")

    def _lead(self, leader: str, receivers: Mapping[str, _Offer], failed: dict[str, str]) -> None:
        offers = list(receivers.values())
        request = ConfigRecord(
            {
                "clients": list(receivers),
                "offers": [offer.public for offer in offers],
                "identities": [offer.identity for offer in offers],
            }
        )
        answers = self._ask({leader: RecordDict({"seal": request})})
        told = answered(answers, leader, "seal")
        name, identity = blob(told, "key"), blob(told, "identity")
        if self._holders and name != self._name:
            raise WireError("it has another key than the others")
        sealed = _pairs(listed(told, "to", str), listed(told, "sealed", bytes))
        why = _pairs(listed(told, "not", str), listed(told, "why", str))
        # All of it is read: a leader that is refused leaves nothing behind, least of all a key.
        self._pending |= {
            client: ConfigRecord({"sealed": data, "leader": leader, "identity": identity})
            for client, data in sealed
            if client in receivers
        }
        failed |= {client: shown(reason) for client, reason in why if client in receivers}
        self._name = name
        self._holders.add(leader)


def _pairs(keys: list[str], values: list[T]) -> list[tuple[str, T]]:
    if len(keys) != len(values):
        raise WireError("it says of other clients than it sends something for")
    return list(zip(keys, values, strict=True))
