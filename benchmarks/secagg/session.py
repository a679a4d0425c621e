"""Play a session of our secure aggregation: every client in this process, the server in another."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.he import timed
from benchmarks.secagg.server import Unmasked, server_process, warm_up
from task.identity import Identity
from task.secagg.client import Member
from task.secagg.encoding import Encoding
from task.secagg.session import Advert, FreshKeys, Session, Terms

HEAVIEST = 10
"""Weights of updates: 1 to this."""
SHORT = 1000
"""Values of the clients whose seconds are not taken."""

Timed = dict[str, float]


@dataclass(frozen=True)
class Cohort:
    """Who takes part.

    Attributes
    ----------
    clients : int
    dropout : float
        The share of them that deals shares and then sends no vector.
    bits : int
        As in `Terms`.
    measured : int or None
        Only so many send whole vectors, and their seconds are the clients'; the others send
        the first `SHORT` values and zeros. None: all.
    """

    clients: int
    dropout: float
    bits: int = 32
    measured: int | None = None

    @property
    def gone(self) -> set[int]:
        """The numbers of those who drop out."""
        return set(range(0, self.clients, round(1 / self.dropout)))

    @property
    def terms(self) -> Terms:
        """The terms that allow for them."""
        return Terms(
            bits=self.bits, range=1.0, max_weight=HEAVIEST, threshold=0.66, min_cohort=3,
            corrupt=0.1, dropout=self.dropout, stochastic=False, active=False,
        )  # fmt: skip


class Play:
    """One session, over one update that every client has, each with its weight.

    Parameters
    ----------
    cohort : Cohort
    update : Tensor of float32, shape (size,)
        Values within ±1.
    """

    def __init__(self, cohort: Cohort, update: torch.Tensor) -> None:
        self.cohort, self.update = cohort, update
        count = cohort.clients
        self.identities = [Identity() for _ in range(count)]
        self.keys = [FreshKeys.generate() for _ in range(count)]
        both = zip(self.keys, self.identities, strict=True)
        self.adverts = [keys.advert(str(i), who) for i, (keys, who) in enumerate(both)]
        self.roster = {str(i): who.public for i, who in enumerate(self.identities)}
        self.members: dict[int, Member] = {}
        self.alive = [i for i in range(count) if i not in cohort.gone]
        self.whole = set(self.alive[: cohort.measured])
        self.shared = self.session()
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.sent: dict[int, int] = defaultdict(int)

    def run(self) -> Timed:
        """Play it; return medians over the clients whose seconds are taken, and the server's."""
        warm_up(self.shared)
        with server_process(self.shared, self.adverts) as server:
            self.share(server)
            self.mask(server)
            self.agree_and_unmask(server)
            result = server.unmask()
        self.check(result)
        return {
            **{stage: statistics.median(seconds) for stage, seconds in self.seconds.items()},
            "server_s": result.seconds,
            "server_peak_bytes": result.peak,
            "upload_bytes": max(self.sent[i] for i in self.whole),
            "neighbours": len(self.shared.graph[0]),
        }

    def session(self) -> Session:
        """Return what each client makes for itself."""
        digests = tuple(advert.digest for advert in self.adverts)
        return Session("benchmark", "train", 1, self.cohort.terms, digests)

    def share(self, server: Any) -> None:
        """Have all clients check their neighbours and deal shares."""
        for i in range(self.cohort.clients):
            peers = server.neighbours(i)
            sealed, committed = self.timed("share_s", i, partial(self.dealt, i, peers))
            server.take_shares(i, sealed, committed)
            self.sent[i] += len(self.adverts[i].pack()) + len(committed) + size_of(sealed)

    def dealt(self, i: int, peers: list[Advert]) -> tuple[dict[int, bytes], bytes]:
        """Return what a client deals."""
        own = (self.keys[i], self.adverts[i])
        # The others need not each work out the graph.
        session = self.session() if i in self.whole else self.shared
        self.members[i] = Member.join(session, *own, peers, self.roster)
        return self.members[i].deal()

    def mask(self, server: Any) -> None:
        """Have those who are left send their vectors."""
        short = np.zeros(len(self.update), f"<u{self.cohort.bits // 8}")
        for i in self.alive:
            update = self.update if i in self.whole else self.update[:SHORT]
            encoding = self.encoding(len(update))
            words = self.timed("encode_s", i, partial(encoding.encode, update, weight(i), ()))
            sealed = server.shares_for(i)
            self.timed("mask_s", i, partial(self.members[i].mask, words, sealed))
            if i in self.whole:
                server.add([i], words, len(words))
            else:
                short[:SHORT] += words
            self.sent[i] += words.nbytes
        server.add([i for i in self.alive if i not in self.whole], short, len(short))

    def agree_and_unmask(self, server: Any) -> None:
        """Have them sign whose vectors arrived, and reveal shares."""
        arrived = server.whose_arrived()
        for i in self.alive:
            agree = partial(self.members[i].agree, arrived, self.identities[i])
            signature = self.timed("agree_s", i, agree)
            server.take_signature(i, signature)
            self.sent[i] += len(signature)
        for i in self.alive:
            own = self.identities[i].public
            unmask = partial(self.members[i].unmask, server.signatures_for(i), own)
            shares = self.timed("unmask_s", i, unmask)
            server.take_unmasking(i, shares)
            self.sent[i] += size_of(shares)

    def timed(self, stage: str, i: int, work: Callable[[], Any]) -> Any:
        """Do a client's work; keep its seconds if they count."""
        seconds, result = timed(work)
        if i in self.whole:
            self.seconds[stage].append(seconds)
        return result

    def encoding(self, size: int) -> Encoding:
        """Return how updates of a size are encoded."""
        return Encoding(self.cohort.terms, self.cohort.clients, size, figures=0)

    def check(self, result: Unmasked) -> None:
        """Make sure that the sum is the updates'."""
        right = len(self.update) if len(self.whole) == len(self.alive) else SHORT
        encoding = self.encoding(right)
        found, _ = encoding.decode(result.total[:right], len(self.alive))
        wanted = self.update[:right].double().numpy() * sum(map(weight, self.alive))
        assert np.abs(found - wanted).max() <= encoding.error, "the sum is wrong"


def weight(client: int) -> int:
    """Return what a client's update weighs."""
    return client % HEAVIEST + 1


def size_of(parts: dict[int, bytes]) -> int:
    """Return the bytes of several strings."""
    return sum(map(len, parts.values()))
