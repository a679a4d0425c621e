"""The total is the sum of the vectors that arrived, or there is none; over many random sessions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import FedproofError
from task.secagg import client, masks, session
from task.secagg.client import Member
from task.secagg.masks import TYPES
from task.secagg.server import Aggregator
from task.secagg.session import Advert, FreshKeys, Session
from tests.task.secagg.protocol import TERMS, Run, identity

SIZE = 8
SESSIONS = 9800
"""Of the plain loop; with the 200 of the property test they are 10,000."""
ENDS = (
    "clients were asked", "dealt it shares", "vectors arrived, aggregation", "neighbours sent",
    "signed that the same", "came back",
)  # fmt: skip
NOBODY = "clients sent a vector"
"""Where nobody is left to refuse, which is rare."""
Lost = Sequence[Collection[int]]


def survives(run: Run, lost: Lost) -> bool:
    """Return whether a session gives a sum, by Bonawitz et al.'s and Bell et al.'s conditions."""
    holders = [{i, *near} for i, near in enumerate(run.session().graph)]
    share, least = Fraction(str(run.terms.threshold)), run.terms.min_cohort
    needed = [int(share * len(h)) + 1 for h in holders]
    there, stages = set(range(run.clients)), []
    for gone in lost:
        there = there - set(gone)
        stages.append(there)
    shared, masked, _, unmasked = stages

    def all_enough(who: Collection[int], among: set[int]) -> bool:
        return all(len(holders[i] & among) >= needed[i] for i in who)

    # A client goes on only with enough holders in the stage before.
    goes_on = all(all_enough(now, before) for before, now in pairwise(stages))
    # Masks are taken off: self masks of those there, pair masks of those gone with somebody there.
    gone = {i for i in shared - masked if holders[i] & masked}
    return goes_on and len(masked) >= least and all_enough(masked | gone, unmasked)


def check(run: Run, lost: Lost, vectors: np.ndarray, restored: bool = False) -> str:
    """Play a session; return "sum", or the sentence that ended it."""

    def between(_: int) -> None:
        if restored:
            for i, member in run.members.items():
                text = member.pack()
                run.members[i] = Member.unpack(text)
                assert run.members[i].pack() == text

    try:
        total = run.play(vectors, lost, between)
    except FedproofError as error:
        assert not survives(run, lost)
        assert str(error).endswith(".") and "\n" not in str(error)
        return str(error)
    assert survives(run, lost)
    arrived = sorted(set(range(run.clients)) - set(lost[0]) - set(lost[1]))
    assert run.server.alive == set(arrived)
    kind = TYPES[run.terms.bits]
    expected = vectors[arrived].astype(object).sum(axis=0) % 2**run.terms.bits
    assert total.dtype == kind
    np.testing.assert_array_equal(total, expected.astype(kind))
    return "sum"


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[Run, Lost, np.ndarray, bool]:
    clients = draw(st.integers(3, 7))
    bits, numbers = draw(st.sampled_from([16, 32])), st.integers(0, clients - 1)
    terms = replace(
        TERMS,
        bits=bits,
        threshold=draw(st.sampled_from([0.5, 0.66, 0.9])),
        active=False,
        min_cohort=draw(st.integers(2, 4)),
    )
    row = st.lists(st.integers(0, 2**bits - 1), min_size=2, max_size=2)
    vectors = np.array(draw(st.lists(row, min_size=clients, max_size=clients)), np.uint64)
    lost = draw(st.lists(st.sets(numbers, max_size=2), min_size=4, max_size=4))
    return Run(clients, terms, size=2), lost, vectors, draw(st.booleans())


@settings(max_examples=200, deadline=None)
@given(cohorts())
def test_the_total_is_the_sum_of_those_that_arrived_or_there_is_none(case):
    check(*case[:3], restored=case[3])


class Pooled(Run):
    """Clients whose keys are made once, and share one `Session`; sessions differ by numbers."""

    def __post_init__(self) -> None:
        pool = [_pooled(i) for i in range(self.clients)]
        self.keys, self.adverts = [keys for keys, _ in pool], [advert for _, advert in pool]
        self.told = super().session()
        self.server = Aggregator(self.told, self.adverts)

    def session(self, **changes: Any) -> Session:
        assert not changes
        return self.told


@cache
def _pooled(i: int) -> tuple[FreshKeys, Advert]:
    keys = FreshKeys.generate()
    return keys, keys.advert(f"client-{i}", identity(i))


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute what keys and signatures give once for each input, and masks in small pieces."""
    exchange, remember = session._shared, lru_cache(maxsize=4096)
    found: dict[tuple[bytes, bytes], bytes] = {}

    def shared(mine: Any, theirs: bytes) -> bytes:
        pair = mine.private_bytes_raw(), theirs
        if pair not in found:
            found[pair] = exchange(mine, theirs)
        return found[pair]

    monkeypatch.setattr(session, "_shared", shared)
    monkeypatch.setattr(session, "_derived", remember(session._derived))
    monkeypatch.setattr(session, "is_signed", remember(session.is_signed))
    monkeypatch.setattr(client, "is_signed", remember(client.is_signed))
    monkeypatch.setattr(masks, "_PIECE", 64)
    monkeypatch.setattr(masks, "_ZEROS", bytes(64))


def random_case(rng: random.Random, number: int) -> tuple[Run, Lost, np.ndarray, bool]:
    clients = rng.choices(range(3, 8), [50, 25, 15, 6, 4])[0]
    bits = rng.choice([16, 32])
    terms = replace(
        TERMS,
        bits=bits,
        threshold=rng.choice([0.5, 0.66, 0.66, 0.8]),
        active=False,
        min_cohort=rng.choice([2, 3, 3, 3, 4]),
    )
    lost: list[set[int]] = [set(), set(), set(), set()]
    for client_lost in range(clients):
        if rng.random() < 0.2:
            lost[rng.randrange(4)].add(client_lost)
    shape = clients, SIZE
    vectors = np.random.default_rng(number).integers(0, 2**bits, shape, dtype=np.uint64)
    return Pooled(clients, terms, SIZE, number), lost, vectors, rng.random() < 0.2


def test_ten_thousand_sessions(remembered):
    rng = random.Random(20)
    ends: Counter[str] = Counter()
    for number in range(SESSIONS):
        run, lost, vectors, restored = random_case(rng, number)
        end = check(run, lost, vectors, restored)
        ends[end if end == "sum" else next(why for why in (*ENDS, NOBODY) if why in end)] += 1
    assert ends["sum"] > SESSIONS / 3
    assert all(ends[why] > SESSIONS / 200 for why in ENDS), ends


@pytest.mark.parametrize("seed", range(8))
def test_regular_graphs_of_small_degree(seed, remembered, monkeypatch):
    monkeypatch.setattr(session, "degree", lambda *_: 8)
    rng = random.Random(seed)
    clients = rng.randint(20, 30)
    run = Pooled(clients, TERMS, SIZE, seed)
    assert {len(near) for near in run.session().graph} == {8}
    lost = [set(rng.sample(range(clients), rng.randint(0, 1 + seed % 2))) for _ in range(4)]
    vectors = np.random.default_rng(seed).integers(0, 2**32, (clients, SIZE), dtype=np.uint64)
    check(run, lost, vectors, restored=seed % 2 == 0)


@pytest.mark.parametrize("clients", [60, 110])
def test_regular_graphs_as_they_are(clients):
    run, rng = Run(clients), random.Random(clients)
    assert 10 < len(run.session().graph[0]) < clients - 1
    gone = rng.sample(range(clients), 8)
    lost: list[Collection[int]] = [gone[:2], gone[2:4], gone[4:6], gone[6:]]
    vectors = np.random.default_rng(1).integers(0, 2**32, (clients, SIZE), dtype=np.uint64)
    assert check(run, lost, vectors) == "sum"


@pytest.mark.parametrize("bits", [16, 32])
def test_sums_wrap_around_like_integers(bits):
    run = Run(4, replace(TERMS, bits=bits))
    vectors = np.full((4, SIZE), 2**bits - 1, np.uint64)
    assert check(run, ((), (), (), ()), vectors) == "sum"


def test_sums_of_several_arrive_together():
    """As an edge between clients and server adds them up."""
    run, vectors = Run(4), np.arange(32).reshape(4, SIZE).astype(np.uint64)
    run.share(range(4))
    words = [vectors[i].astype(np.uint32) for i in range(4)]
    for i in range(4):
        run.members[i].mask(words[i], run.server.shares_for(i))
    run.server.add([0, 1], words[0] + words[1], run.size)
    run.server.add([2, 3], words[2] + words[3], run.size)
    run.agree(range(4))
    run.unmask(range(4))
    np.testing.assert_array_equal(run.server.total(), vectors.sum(axis=0))


@pytest.mark.parametrize("words", [np.zeros(7, np.uint32), np.zeros(8, np.uint16)])
def test_vectors_that_do_not_fit_leave_the_sum_alone(words):
    run = Run(3)
    run.share(range(3))
    with pytest.raises(FedproofError, match="does not fit the others"):
        run.server.add([0], words, run.size)
    assert run.server.alive == set() and not run.server._total.any()


def test_one_vector_of_each_who_dealt_shares():
    run, words = Run(4), np.zeros(8, np.uint32)
    run.share(range(3))
    run.server.add([0], words, run.size)
    for again in (0, 3):
        with pytest.raises(FedproofError, match="dealt no shares for this sum, or has sent"):
            run.server.add([again], words, run.size)
    assert run.server.alive == {0}


def test_shares_for_all_neighbours_or_none():
    run = Run(4)
    sealed, committed = run.join(0).deal()
    del sealed[2]
    with pytest.raises(FedproofError, match="each of its neighbours"):
        run.server.take_shares(0, sealed, committed)
    assert run.server.dealt == set()
