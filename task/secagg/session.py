"""What the clients of a session must know alike: its terms, and whose fresh keys belong to it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from conf.errors import FedproofError
from task.identity import PUBLIC, SIGNATURE, Identity, bound, is_signed
from task.secagg.graph import degree, neighbours, neighbours_of, threshold_of
from task.secagg.shamir import PRIME

_ADVERT = "fedproof secagg advert 1"
_SESSION = "fedproof secagg session 1"
_PROBE = X25519PrivateKey.generate()
DIGEST = 32
"""Bytes of an advert's digest."""


@dataclass(frozen=True)
class Terms:
    """What a run's settings say of its sessions.

    Attributes
    ----------
    bits : int
        b: vectors are added modulo 2^b, 16 or 32.
    range : float
        No value of an update is beyond [-range, range].
    max_weight : int
        The most that an update weighs.
    threshold : float
        More than this share of a client's holders unmask it; at least a half.
    min_cohort : int
        The fewest whose sum may be seen.
    corrupt, dropout : float
        Shares of the cohort for which large cohorts' graphs are made (`graph.degree`).
    stochastic : bool
        Whether values are rounded at random, without bias, instead of to the nearest.
    active : bool
        Whether clients deal only with those in their roster.
    colluders : int
        Clients of a session that may collude with a server that cheats, at least.
    """

    bits: int
    range: float
    max_weight: int
    threshold: float
    min_cohort: int
    corrupt: float
    dropout: float
    stochastic: bool
    active: bool
    colluders: int = 1

    def colluders_among(self, clients: int) -> int:
        """Return how many colluders a session of so many clients must withstand."""
        return max(self.colluders, math.ceil(self.corrupt * (clients - 1)))


@dataclass(frozen=True)
class Advert:
    """A client's fresh public keys, for one session, signed with its identity key."""

    client: str
    identity: bytes
    masking: bytes
    sealing: bytes
    signature: bytes

    @classmethod
    def unpack(cls, client: str, data: bytes) -> Self:
        """Read what `pack` made."""
        ends = (PUBLIC, 2 * PUBLIC, 3 * PUBLIC, 3 * PUBLIC + SIGNATURE)
        return cls(client, *(data[a:b] for a, b in zip((0, *ends), ends, strict=False)))

    def pack(self) -> bytes:
        """Return what travels, besides the name."""
        return self.identity + self.masking + self.sealing + self.signature

    def require_signed(self) -> None:
        """Refuse an advert that its owner did not sign, or with keys that agree on nothing.

        Raises
        ------
        FedproofError
            Then.
        """
        told = (_ADVERT, self.client, self.masking, self.sealing)
        if not is_signed(self.identity, self.signature, *told):
            raise FedproofError(
                f"the keys of client '{self.client}' are not signed by it: they may be somebody "
                "else's, and were refused."
            )
        try:
            for key in (self.masking, self.sealing):
                _shared(_PROBE, key)
        except ValueError:  # not a point, or one of the few of low order
            raise FedproofError(
                f"the keys of client '{self.client}' agree on no secret with anybody's, and were "
                "refused."
            ) from None

    @cached_property
    def digest(self) -> bytes:
        """Which advert this is."""
        return hashlib.sha256(bound(_ADVERT, self.client, self.pack())).digest()


@dataclass(frozen=True)
class FreshKeys:
    """The secret halves of an advert's keys."""

    masking: X25519PrivateKey
    sealing: X25519PrivateKey

    @classmethod
    def generate(cls) -> Self:
        """Make new ones."""
        masking = X25519PrivateKey.generate()
        while int.from_bytes(masking.private_bytes_raw(), "big") >= PRIME:  # 2^-248
            masking = X25519PrivateKey.generate()
        return cls(masking, X25519PrivateKey.generate())

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read what `pack` made."""
        load = X25519PrivateKey.from_private_bytes
        return cls(load(data[:PUBLIC]), load(data[PUBLIC:]))

    def pack(self) -> bytes:
        """Return what a client keeps to itself."""
        return self.masking.private_bytes_raw() + self.sealing.private_bytes_raw()

    def advert(self, client: str, identity: Identity) -> Advert:
        """Return the public halves, signed."""
        masking, sealing = (
            key.public_key().public_bytes_raw() for key in (self.masking, self.sealing)
        )
        signature = identity.sign(_ADVERT, client, masking, sealing)
        return Advert(client, identity.public, masking, sealing, signature)


@dataclass(frozen=True)
class Session:
    """One sum: for what, under which terms, over whose vectors.

    Attributes
    ----------
    run : str
        Flower's id of the run.
    purpose : str
        What is added up (`task.secure.kinds.Kind`).
    number : int
        The round.
    terms : Terms
        By each client's own settings.
    digests : tuple of bytes
        Of the adverts, in the order of the clients' numbers.
    """

    run: str
    purpose: str
    number: int
    terms: Terms
    digests: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.digests)

    @cached_property
    def root(self) -> bytes:
        """Hash of all of it: keys are bound to it, so clients that were told otherwise differ."""
        terms = [f"{key}={value!r}" for key, value in sorted(asdict(self.terms).items())]
        told = [_SESSION, self.run, self.purpose, str(self.number), *terms]
        return hashlib.sha256(bound(*told, *self.digests)).digest()

    @cached_property
    def degree(self) -> int:
        """How many neighbours each client has."""
        terms = self.terms
        return degree(len(self), terms.threshold, terms.corrupt, terms.dropout)

    @cached_property
    def graph(self) -> list[list[int]]:
        """Each client's neighbours."""
        return neighbours(len(self), self.degree, self.root)

    def near(self, client: int) -> list[int]:
        """Return one client's neighbours."""
        return neighbours_of(client, len(self), self.degree, self.root)

    @property
    def threshold(self) -> int:
        """How many of a client's holders, itself and its neighbours, unmask it."""
        return threshold_of(self.degree + 1, self.terms.threshold)

    @property
    def withstood(self) -> int:
        """How many colluders a server that cheats can have, and see no honest client's vector.

        To open one, it needs t = `threshold` shares of the self mask, from holders that signed
        that the client is there, and t of the mask key, from holders that signed that it is gone.
        Each of the h holders signs once, and c colluders twice, so it succeeds if 2t <= h + c; if
        no more than ``min_cohort`` clients are asked, none can be called gone. It also succeeds if
        c >= t, or if all but one in the sum collude: a sum holds t clients, and ``min_cohort``.

        In cohorts where not everybody is a neighbour, `graph.degree` sees to it for a share of
        ``corrupt``, but for a chance of 2^-40.
        """
        terms, holders, threshold = self.terms, self.degree + 1, self.threshold
        if holders < len(self):
            return math.ceil(terms.corrupt * (len(self) - 1))
        most = min(threshold - 1, max(threshold, terms.min_cohort) - 2)
        return most if len(self) <= terms.min_cohort else min(most, 2 * threshold - holders - 1)


def self_mask(root: bytes, client: int, secret: bytes) -> bytes:
    """Return the seed of a client's self mask in the session of a `root`."""
    return _derived(secret, "self mask", root, str(client))


def pair_mask(root: bytes, pair: tuple[int, int], mine: X25519PrivateKey, theirs: bytes) -> bytes:
    """Return the seed of the mask of two clients, from one's secret and the other's public key."""
    return _derived(_shared(mine, theirs), "pair mask", root, *map(str, sorted(pair)))


def share_key(root: bytes, route: tuple[int, int], mine: X25519PrivateKey, theirs: bytes) -> bytes:
    """Return the key under which the first client's shares go to the second."""
    return _derived(_shared(mine, theirs), "share", root, *map(str, route))


def commitment(root: bytes, client: int, secret: bytes) -> bytes:
    """Return what tells a self mask's secret from another one, and nothing about it."""
    return _derived(secret, "commitment", root, str(client))


def cohort_of(digests: bytes) -> tuple[bytes, ...]:
    """Cut digests that travelled as one string apart."""
    return tuple(digests[i : i + DIGEST] for i in range(0, len(digests), DIGEST))


def bits_of(members: Sequence[bool]) -> bytes:
    """Return yes or no for each client, eight to a byte."""
    value = sum(1 << i for i, there in enumerate(members) if there)
    return value.to_bytes((len(members) + 7) // 8, "little")


def members_of(bits: bytes) -> set[int]:
    """Return the numbers of the clients with a yes."""
    value = int.from_bytes(bits, "little")
    return {i for i in range(value.bit_length()) if value >> i & 1}


def _shared(mine: X25519PrivateKey, theirs: bytes) -> bytes:
    return mine.exchange(X25519PublicKey.from_public_bytes(theirs))


def _derived(secret: bytes, *info: str | bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=bound(*info)).derive(secret)
