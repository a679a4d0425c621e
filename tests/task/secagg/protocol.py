"""A whole session in this process, for tests: clients, a server, and who drops out when."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest

from conf.errors import FedproofError
from task.identity import Identity
from task.secagg.client import Member
from task.secagg.masks import TYPES
from task.secagg.server import Aggregator
from task.secagg.session import Advert, FreshKeys, Session, Terms

TERMS = Terms(
    bits=32, range=8.0, max_weight=1000, threshold=0.66, min_cohort=3, corrupt=0.1, dropout=0.1,
    stochastic=False, active=True,
)  # fmt: skip
STAGES = ("share", "mask", "agree", "unmask")


@cache
def identity(number: int) -> Identity:
    return Identity()


def require_sentence(error: FedproofError) -> None:
    """One sentence, without a value, a key or a share in it."""
    text = str(error)
    assert text.endswith(".") and ". " not in text and "\n" not in text
    assert not re.search(r"\d{5}|[0-9a-f]{12}", text), text


@contextmanager
def refusal(client: int, why: str, number: int = 1) -> Iterator[None]:
    """Expect that a client refuses, in a sentence that says who, in which round, and why."""
    with pytest.raises(FedproofError, match=why) as caught:
        yield
    assert f"client 'client-{client}' refuses in the secure sum of round {number} (train)" in str(
        caught.value
    )
    require_sentence(caught.value)


@dataclass
class Run:
    """A cohort with its keys, and what the server has of it."""

    clients: int
    terms: Terms = TERMS
    size: int = 8
    number: int = 1
    keys: list[FreshKeys] = field(init=False)
    adverts: list[Advert] = field(init=False)
    members: dict[int, Member] = field(default_factory=dict)
    mask_sent: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = [FreshKeys.generate() for _ in range(self.clients)]
        self.adverts = [keys.advert(f"client-{i}", identity(i)) for i, keys in enumerate(self.keys)]
        self.server = Aggregator(self.session(), self.adverts)

    @property
    def roster(self) -> dict[str, bytes]:
        return {f"client-{i}": identity(i).public for i in range(self.clients)}

    def session(self, **changes: Any) -> Session:
        digests = tuple(advert.digest for advert in self.adverts)
        told = {"run": "r", "purpose": "train", "number": self.number, "terms": self.terms}
        return Session(**{**told, "digests": digests, **changes})

    def join(self, i: int, **changes: Any) -> Member:
        told = {
            "session": self.session(), "keys": self.keys[i], "own": self.adverts[i],
            "peers": self.server.neighbours(i),
            "roster": self.roster if self.terms.active else None,
        }  # fmt: skip
        return Member.join(**{**told, **changes})

    def share(self, who: Collection[int]) -> None:
        for i in who:
            self.members[i] = self.join(i)
            self.server.take_shares(i, *self.members[i].deal())

    def mask(self, who: Collection[int], vectors: np.ndarray) -> dict[int, np.ndarray]:
        sent = {}
        for i in who:
            words = vectors[i].astype(TYPES[self.terms.bits])
            self.members[i].mask(words, self.server.shares_for(i))
            self.server.add([i], words, self.size)
            sent[i] = words.copy()
        return sent

    def agree(self, who: Collection[int]) -> None:
        for i in who:
            self.server.take_signature(i, self.members[i].agree(self.server.arrived, identity(i)))

    def unmask(self, who: Collection[int]) -> None:
        for i in who:
            shares = self.members[i].unmask(self.server.signatures_for(i), identity(i).public)
            self.server.take_unmasking(i, shares)

    def play(
        self,
        vectors: np.ndarray,
        lost: Sequence[Collection[int]] = ((), (), (), ()),
        between: Callable[[int], None] = lambda stage: None,
    ) -> np.ndarray:
        """Run all stages; `lost[s]` are gone from stage s on. `between` is told each stage."""
        there = set(range(self.clients))
        stages = (self.share, lambda who: self.mask(who, vectors), self.agree, self.unmask)
        for number, stage in enumerate(stages):
            there -= set(lost[number])
            stage(sorted(there))
            between(number)
        return self.server.total()
