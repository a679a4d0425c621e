"""A client's side of a session: what it reveals, and when it refuses."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from task.identity import Identity, Roster, bound, is_signed
from task.secagg.masks import Words, add_masks
from task.secagg.seat import Seat
from task.secagg.session import (
    Advert,
    FreshKeys,
    Session,
    commitment,
    members_of,
    pair_mask,
    self_mask,
    share_key,
)
from task.secagg.shamir import SIZE, new_secret, split

AGREE = "fedproof secagg agree 1"
_NONCE = 12


@dataclass
class Member:
    """One client in one session, from when it has dealt its shares until it has revealed others'.

    Attributes
    ----------
    seat : Seat
    keys : FreshKeys
        Its own.
    secret : bytes
        Of its self mask.
    peers : dict
        Its neighbours' adverts by number.
    shares : dict
        What it holds of itself and its neighbours, by number: a share of the self mask's secret
        and one of the mask key.
    masked : bool
        Whether it was asked for its vector, which happens once.
    alive : bytes or None
        Whose vectors arrived, once it has signed that; empty once it has revealed shares.
    """

    seat: Seat
    keys: FreshKeys
    secret: bytes
    peers: dict[int, Advert]
    shares: dict[int, bytes] = field(default_factory=dict)
    masked: bool = False
    alive: bytes | None = None

    @classmethod
    def join(
        cls,
        session: Session,
        keys: FreshKeys,
        own: Advert,
        peers: Sequence[Advert],
        roster: Roster | None,
    ) -> Self:
        """Check whom the server brought together.

        Parameters
        ----------
        session : Session
            By what the server told and this client's own settings.
        keys : FreshKeys
            The secret halves of the client's advert.
        own : Advert
            That advert.
        peers : sequence of Advert
            The neighbours', in the order of their numbers.
        roster : mapping of str to bytes, or None
            The public keys of the clients that it knows; None: it takes the server's word.

        Raises
        ------
        FedproofError
            If it does not take part in that.
        """
        seat = Seat.of(session, own)
        if seat.count < seat.least:
            raise seat.refusal(
                f"{seat.count} clients were asked, aggregation.min_cohort is {seat.least}"
            )
        if seat.index < 0 or len(set(session.digests)) < seat.count:
            raise seat.refusal("the cohort does not hold its keys, or holds some twice")
        numbers = session.near(seat.index)
        if [peer.digest for peer in peers] != [session.digests[i] for i in numbers]:
            raise seat.refusal("the keys of its neighbours are not those of the cohort")
        if len({own.client, *(peer.client for peer in peers)}) <= len(peers):
            raise seat.refusal("a client has two keys in the cohort")
        for peer in peers:
            peer.require_signed()
        if roster is not None:
            _require_known(seat, [own, *peers], roster)
            if session.withstood < session.terms.colluders_among(seat.count):
                raise seat.refusal(
                    f"aggregation.threshold={session.terms.threshold:g} lets "
                    f"{session.withstood + 1} colluding clients of {seat.count} open a vector"
                )
        return cls(seat, keys, new_secret(), dict(zip(numbers, peers, strict=True)))

    def cohort(self) -> bytes:
        """Return a digest of the clients whose vectors the sum holds, or may hold before it signs.

        Where it does not know all of them by name, in large cohorts, no two are the same.
        """
        names = {i: peer.client for i, peer in self.peers.items()}
        names[self.seat.index] = self.seat.client
        if len(names) < self.seat.count:
            return self.seat.root
        there = names.keys() if self.alive is None else members_of(self.alive)
        return hashlib.sha256(bound(*sorted(names[i] for i in there))).digest()

    def deal(self) -> tuple[dict[int, bytes], bytes]:
        """Return encrypted shares for each neighbour, and the commitment to the self mask."""
        seat = self.seat
        holders = [*self.peers, seat.index]
        dealt = [
            split(secret, [i + 1 for i in holders], seat.threshold)
            for secret in (self.secret, self.keys.masking.private_bytes_raw())
        ]
        both = {i: a + b for i, a, b in zip(holders, *dealt, strict=True)}
        self.shares = {seat.index: both.pop(seat.index)}
        sealed = {}
        for i, peer in self.peers.items():
            key = share_key(seat.root, (seat.index, i), self.keys.sealing, peer.sealing)
            nonce = os.urandom(_NONCE)
            sealed[i] = nonce + AESGCM(key).encrypt(nonce, both[i], self._route(seat.index, i))
        return sealed, commitment(seat.root, seat.index, self.secret)

    def mask(self, words: Words, sealed: Mapping[int, bytes]) -> None:
        """Mask a vector, in place, against the neighbours whose shares came.

        Parameters
        ----------
        words : uint16 or uint32 array, shape (size,)
            The vector, encoded.
        sealed : mapping of int to bytes
            What neighbours dealt to this client.

        Raises
        ------
        FedproofError
            If it was asked before, shares were altered, or there are too few.
        """
        if self.masked:
            raise self.seat.refusal("it was asked for a second vector")
        self.masked = True
        shares = {i: self._opened(i, data) for i, data in sealed.items()}
        self.shares |= shares
        self._require_enough(len(self.shares), "dealt it shares")
        mine = self.seat.index
        seeds: tuple[list[bytes], list[bytes]] = ([], [])
        for i in shares:
            seed = pair_mask(self.seat.root, (mine, i), self.keys.masking, self.peers[i].masking)
            seeds[i < mine].append(seed)
        add_masks(words, [self_mask(self.seat.root, mine, self.secret), *seeds[0]], seeds[1])

    def agree(self, alive: bytes, identity: Identity) -> bytes:
        """Sign whose vectors arrived.

        Parameters
        ----------
        alive : bytes
            Yes or no for each client (`session.bits_of`).
        identity : Identity
            The client's own.

        Raises
        ------
        FedproofError
            If they are too few, or it has signed before.
        """
        if not self.masked or self.alive is not None:
            raise self.seat.refusal("it was asked to sign whose vectors arrived a second time")
        there = members_of(alive)
        if self.seat.index not in there or max(there) >= self.seat.count:
            raise self.seat.refusal("its own vector is said not to have arrived")
        if len(there) < self.seat.least:
            raise self.seat.refusal(
                f"only {len(there)} vectors arrived, aggregation.min_cohort is {self.seat.least}"
            )
        self._require_enough(len(there & self.shares.keys()), "sent a vector")
        self.alive = alive
        return identity.sign(AGREE, self.seat.root, alive)

    def unmask(self, signatures: Mapping[int, bytes], own: bytes) -> dict[int, bytes]:
        """Return one share for each client that this one holds shares of; it is done then.

        Parameters
        ----------
        signatures : mapping of int to bytes
            Of what the client itself signed, by neighbours and by itself.
        own : bytes
            Its identity key's public half.

        Raises
        ------
        FedproofError
            If it has not signed, or too few others signed the same.
        """
        if not self.alive:
            raise self.seat.refusal("it was asked for shares before it signed, or again")
        # Once, whatever comes of it; nor does it sign again.
        alive, self.alive = self.alive, b""
        keys = {i: peer.identity for i, peer in self.peers.items()} | {self.seat.index: own}
        told = (AGREE, self.seat.root, alive)
        valid = (i for i, s in signatures.items() if i in keys and is_signed(keys[i], s, *told))
        # Checking them takes longest of all: no more of them than needed.
        count = sum(1 for _ in islice(valid, self.seat.threshold))
        self._require_enough(count, "signed that the same vectors arrived")
        there = members_of(alive)
        return {i: s[:SIZE] if i in there else s[SIZE:] for i, s in self.shares.items()}

    def pack(self) -> str:
        """Return all of it as text, which nobody else may read."""
        facts = {
            "seat": {**asdict(self.seat), "root": self.seat.root.hex()},
            "keys": self.keys.pack().hex(),
            "secret": self.secret.hex(),
            "peers": {i: [peer.client, peer.pack().hex()] for i, peer in self.peers.items()},
            "shares": {i: share.hex() for i, share in self.shares.items()},
            "masked": self.masked,
            "alive": None if self.alive is None else self.alive.hex(),
        }
        return json.dumps(facts)

    @classmethod
    def unpack(cls, text: str) -> Self:
        """Read what `pack` wrote."""
        facts: dict[str, Any] = json.loads(text)
        seat = Seat(**{**facts["seat"], "root": bytes.fromhex(facts["seat"]["root"])})
        peers = facts["peers"].items()
        return cls(
            seat,
            FreshKeys.unpack(bytes.fromhex(facts["keys"])),
            bytes.fromhex(facts["secret"]),
            {int(i): Advert.unpack(name, bytes.fromhex(data)) for i, (name, data) in peers},
            {int(i): bytes.fromhex(share) for i, share in facts["shares"].items()},
            facts["masked"],
            None if facts["alive"] is None else bytes.fromhex(facts["alive"]),
        )

    def _opened(self, sender: int, data: bytes) -> bytes:
        peer, route = self.peers.get(sender), (sender, self.seat.index)
        if peer is None:
            raise self.seat.refusal("it was sent shares of a client that is not its neighbour")
        key = share_key(self.seat.root, route, self.keys.sealing, peer.sealing)
        try:
            share = AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], self._route(*route))
        except (InvalidTag, ValueError):
            share = b""
        if len(share) != 2 * SIZE:
            raise self.seat.refusal(
                f"the shares of '{peer.client}' were altered, or made for another session"
            )
        return share

    def _route(self, sender: int, receiver: int) -> bytes:
        seat = self.seat
        return bound(seat.run, seat.purpose, str(seat.number), str(sender), str(receiver))

    def _require_enough(self, count: int, what: str) -> None:
        if count < self.seat.threshold:
            raise self.seat.refusal(
                f"{count} of it and its neighbours {what}, {self.seat.threshold} are needed "
                "(aggregation.threshold)"
            )


def _require_known(seat: Seat, adverts: Sequence[Advert], roster: Roster) -> None:
    """Refuse a session with anybody who is not in the roster, or is there twice."""
    for advert in adverts:
        if roster.get(advert.client) != advert.identity:
            raise seat.refusal(
                f"the identity key of '{advert.client}' is not in its roster: put it there if "
                "it is right"
            )
    if len({advert.identity for advert in adverts}) < len(adverts):
        raise seat.refusal("one identity key stands for two clients of the cohort")
