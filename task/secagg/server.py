"""The server's side of a session: it brings clients together, adds up, and takes the masks off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.secagg.masks import TYPES, Words, add_masks
from task.secagg.session import Advert, Session, bits_of, commitment, pair_mask, self_mask
from task.secagg.shamir import combine


class AbandonedError(FedproofError):
    """A session that ends without a sum; nothing was revealed but who took part."""


class Aggregator:
    """One session, as the server sees it.

    Parameters
    ----------
    session : Session
        Whose digests are those of `adverts`, in their order.
    adverts : sequence of Advert
        One for each client: its place is its number.

    Attributes
    ----------
    dealt : set of int
        Clients that dealt shares.
    alive : set of int
        Clients whose vectors arrived.
    """

    def __init__(self, session: Session, adverts: Sequence[Advert]) -> None:
        self.session = session
        self.adverts = list(adverts)
        self.numbers = {advert.client: i for i, advert in enumerate(adverts)}
        self.dealt: set[int] = set()
        self.alive: set[int] = set()
        self._sealed: dict[int, Mapping[int, bytes]] = {}
        self._commitments: dict[int, bytes] = {}
        self._signatures: dict[int, bytes] = {}
        self._shares: dict[int, dict[int, bytes]] = {}
        self._total: Words = np.zeros(0, TYPES[session.terms.bits])

    def neighbours(self, client: int) -> list[Advert]:
        """Return the adverts that a client is told."""
        return [self.adverts[i] for i in self.session.graph[client]]

    def take_shares(self, client: int, sealed: Mapping[int, bytes], committed: bytes) -> None:
        """Take what a client dealt to its neighbours.

        Raises
        ------
        FedproofError
            If it did not deal to each of them.
        """
        if set(sealed) != set(self.session.graph[client]):
            raise FedproofError("it did not deal shares to each of its neighbours.")
        self.dealt.add(client)
        self._sealed[client], self._commitments[client] = sealed, committed

    def shares_for(self, client: int) -> dict[int, bytes]:
        """Return what was dealt to a client."""
        senders = (i for i in self.session.graph[client] if i in self.dealt)
        return {i: self._sealed[i][client] for i in senders}

    def add(self, clients: Iterable[int], words: NDArray[Any], size: int) -> None:
        """Add the masked vector of a client, or the sum of those of several.

        Parameters
        ----------
        clients : iterable of int
            Whose it is.
        words : uint16 or uint32 array, shape (size,)
            The vector.
        size : int
            How long it must be.

        Raises
        ------
        FedproofError
            If it does not fit; the sum is what it was before.
        """
        new = set(clients)
        if words.shape != (size,) or words.dtype != self._total.dtype:
            raise FedproofError("its masked vector does not fit the others.")
        if not new <= self.dealt - self.alive:
            raise FedproofError("it dealt no shares for this sum, or has sent a vector before.")
        if self.alive:
            np.add(self._total, words, out=self._total)
        else:
            self._total = words.copy()
        self.alive |= new

    @property
    def arrived(self) -> bytes:
        """Yes or no for each client, by whether its vector arrived."""
        return bits_of([i in self.alive for i in range(len(self.session))])

    def take_signature(self, client: int, signature: bytes) -> None:
        """Take what a client signed of `arrived`; the other clients check it."""
        self._signatures[client] = signature

    def signatures_for(self, client: int) -> dict[int, bytes]:
        """Return what a client and its neighbours signed."""
        signers = (client, *self.session.graph[client])
        return {i: self._signatures[i] for i in signers if i in self._signatures}

    def take_unmasking(self, client: int, shares: Mapping[int, bytes]) -> None:
        """Take the shares that a client reveals, by whom they belong to."""
        holds = {client, *self.session.graph[client]}
        for owner in holds & shares.keys():
            self._shares.setdefault(owner, {})[client + 1] = shares[owner]

    def total(self) -> Words:
        """Return the sum of the vectors that arrived; the masked one is gone afterwards.

        Raises
        ------
        AbandonedError
            If shares are missing or wrong.
        """
        root, graph, least = self.session.root, self.session.graph, self.session.terms.min_cohort
        if len(self.alive) < least:
            raise AbandonedError(
                f"{len(self.alive)} of {len(self.session)} clients sent a vector, "
                f"aggregation.min_cohort={least} are needed: the sum stays masked."
            )
        secrets = {i: self._secret(i) for i in sorted(self.alive)}
        removed = [self_mask(root, i, secret) for i, secret in secrets.items()]
        added: list[bytes] = []
        for gone in sorted(self.dealt - self.alive):
            peers = [i for i in graph[gone] if i in self.alive]
            if not peers:
                continue
            key = self._mask_key(gone)
            for i in peers:
                seed = pair_mask(root, (gone, i), key, self.adverts[i].masking)
                # What the peer added is taken off, and the other way round.
                (added if gone < i else removed).append(seed)
        add_masks(self._total, added, removed)
        return self._total

    def _secret(self, client: int) -> bytes:
        secret = combine(self._enough_shares(client))
        if commitment(self.session.root, client, secret) != self._commitments[client]:
            raise self._wrong(client)
        return secret

    def _mask_key(self, client: int) -> X25519PrivateKey:
        key = X25519PrivateKey.from_private_bytes(combine(self._enough_shares(client)))
        if key.public_key().public_bytes_raw() != self.adverts[client].masking:
            raise self._wrong(client)
        return key

    def _enough_shares(self, client: int) -> dict[int, bytes]:
        shares, needed = self._shares.get(client, {}), self.session.threshold
        if len(shares) < needed:
            raise AbandonedError(
                f"{len(shares)} shares of the mask of '{self.adverts[client].client}' came back, "
                f"{needed} are needed (aggregation.threshold): the sum stays masked."
            )
        return {point: shares[point] for point in sorted(shares)[:needed]}

    def _wrong(self, client: int) -> AbandonedError:
        return AbandonedError(
            f"a share of the mask of '{self.adverts[client].client}' is wrong: the round's sum "
            "stays masked."
        )
