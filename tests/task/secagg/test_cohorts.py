"""Whom a client deals with: what a server can do about keys, terms and cohorts, and cannot."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from conf.errors import FedproofError
from task.identity import Identity
from task.secagg import session
from task.secagg.masks import add_masks
from task.secagg.server import Aggregator
from task.secagg.session import Advert, FreshKeys
from tests.task.secagg.protocol import TERMS, Run, identity, refusal, require_sentence

VECTORS = np.full((9, 8), 987654321, np.uint64)
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


def with_advert(run: Run, number: int, advert: Advert) -> Run:
    """The server puts another advert into the cohort, before anybody joins."""
    run.adverts[number] = advert
    run.server = Aggregator(run.session(), run.adverts)
    return run


@pytest.mark.parametrize("clients", [1, 2])
def test_cohorts_of_one_and_of_two_are_refused(clients):
    run = Run(clients)
    for i in range(clients):
        with refusal(i, f"{clients} clients were asked, aggregation.min_cohort is 3"):
            run.join(i)


def test_a_client_goes_by_its_own_smallest_cohort():
    run = Run(4)
    with refusal(2, "4 clients were asked, aggregation.min_cohort is 5"):
        run.join(2, session=run.session(terms=replace(TERMS, min_cohort=5)))


@pytest.mark.parametrize("doubled", [(0, 0, 1), (0, 1, 1), (0, 1, 2, 2)])
def test_a_cohort_that_holds_some_twice_is_refused(doubled):
    """The server makes one client look like several."""
    run = Run(3)
    adverts = [run.adverts[i] for i in doubled]
    told = run.session(digests=tuple(advert.digest for advert in adverts))
    with refusal(0, "holds some twice"):
        run.join(0, session=told, peers=adverts[1:])


def test_a_cohort_without_the_client_is_refused():
    run, other = Run(3), Run(3)
    with refusal(0, "does not hold its keys"):
        run.join(0, session=other.session(), peers=other.server.neighbours(0))


def test_two_keys_of_one_client_are_refused():
    run = Run(4)
    again = FreshKeys.generate().advert("client-1", identity(1))
    with_advert(run, 2, again)
    with refusal(0, "a client has two keys in the cohort"):
        run.join(0)
    with refusal(1, "a client has two keys in the cohort"):
        run.join(1)


@pytest.mark.parametrize("peers", [[], [1], [1, 1], [2, 1], [1, 2, 3]])
def test_neighbours_are_those_of_the_cohort(peers):
    run = Run(3)
    adverts = [*run.adverts, FreshKeys.generate().advert("client-3", identity(3))]
    with refusal(0, "keys of its neighbours are not those of the cohort"):
        run.join(0, peers=[adverts[i] for i in peers])


def test_the_servers_own_key_under_a_clients_name_is_refused():
    run, server = Run(3), Identity()
    with_advert(run, 1, FreshKeys.generate().advert("client-1", server))
    for honest in (0, 2):
        with refusal(honest, "identity key of 'client-1' is not in its roster"):
            run.join(honest)
    # Whoever has no roster takes the server's word, which is what `active` is about.
    run.join(0, roster=None)


def test_a_client_that_nobody_knows_is_refused():
    run = Run(3)
    with_advert(run, 2, FreshKeys.generate().advert("stranger", Identity()))
    with refusal(0, "identity key of 'stranger' is not in its roster"):
        run.join(0)


@pytest.mark.parametrize("field", ["masking", "sealing", "signature", "client", "identity"])
@pytest.mark.parametrize("known", [True, False])
def test_adverts_that_were_changed_are_refused(field, known):
    run, mine = Run(3), FreshKeys.generate().advert("client-1", Identity())
    changed = "client-8" if field == "client" else getattr(mine, field)
    with_advert(run, 1, replace(run.adverts[1], **{field: changed}))
    roster = {**run.roster, "client-8": identity(1).public} if known else None
    with pytest.raises(
        FedproofError, match="keys of client 'client-[18]' are not signed"
    ) as caught:
        run.join(0, roster=roster)
    require_sentence(caught.value)


@pytest.mark.parametrize("point", [*LOW_ORDER, b"", bytes(31)])
@pytest.mark.parametrize("field", ["masking", "sealing"])
def test_signed_keys_that_agree_on_nothing_are_refused(point, field):
    """A client signs such keys itself: its secrets with everybody would be known to everybody."""
    run, fresh = Run(3), Run(3).adverts[1]
    keys = {"masking": fresh.masking, "sealing": fresh.sealing, field: point}
    signature = identity(1).sign(session._ADVERT, "client-1", keys["masking"], keys["sealing"])
    with_advert(run, 1, Advert("client-1", identity(1).public, **keys, signature=signature))
    with pytest.raises(
        FedproofError, match="keys of client 'client-1' agree on no secret"
    ) as caught:
        run.join(0)
    require_sentence(caught.value)


CHANGES = {
    "bits": 16, "range": 16.0, "max_weight": 10, "threshold": 0.5, "min_cohort": 2, "corrupt": 0.0,
    "dropout": 0.2, "stochastic": True, "active": False,
}  # fmt: skip


@pytest.mark.parametrize("term", CHANGES)
def test_terms_told_to_one_client_alone_open_no_shares(term):
    """A lowered threshold or minimum, another modulus or clipping: all are in the root."""
    run = Run(4)
    told = run.session(terms=replace(TERMS, **{term: CHANGES[term]}))
    assert told.root != run.session().root
    run.members[0] = run.join(0, session=told)
    run.server.take_shares(0, *run.members[0].deal())
    run.share([1, 2, 3])
    for i in range(4):
        of = 1 if i == 0 else 0
        words = VECTORS[i].astype(np.uint32)
        with refusal(i, f"shares of 'client-{of}' were altered, or made for another session"):
            run.members[i].mask(words, run.server.shares_for(i))
    assert run.server.alive == set()


@pytest.mark.parametrize("facts", [{"run": "s"}, {"purpose": "evaluate"}, {"number": 2}])
def test_shares_of_another_session_do_not_open(facts):
    run = Run(3)
    run.members[0] = run.join(0, session=run.session(**facts))
    run.server.take_shares(0, *run.members[0].deal())
    run.share([1, 2])
    with refusal(1, "shares of 'client-0' were altered, or made for another session"):
        run.members[1].mask(VECTORS[1].astype(np.uint32), run.server.shares_for(1))


def test_terms_leave_no_two_sessions_alike():
    run = Run(3)
    terms = [TERMS, *(replace(TERMS, **{key: value}) for key, value in CHANGES.items())]
    roots = {run.session(terms=one).root for one in terms}
    roots |= {run.session(digests=run.session().digests[::-1]).root, Run(3).session().root}
    assert len(roots) == len(terms) + 2
    # "r" + "train" is not "rt" + "rain".
    for a, b in pairwise([("r", "train"), ("rt", "rain"), ("", "rtrain")]):
        told = [run.session(run=name, purpose=purpose).root for name, purpose in (a, b)]
        assert told[0] != told[1]


def test_an_advert_whose_key_the_server_learnt_earlier_masks_nothing():
    """Client 2 dropped out of a session, so its mask key was revealed; its advert comes again."""
    first = Run(5)
    first.play(VECTORS, ((), (2,), (), ()))
    known = first.server._mask_key(2)
    assert known.public_key().public_bytes_raw() == first.adverts[2].masking
    second = with_advert(Run(5, number=2), 2, first.adverts[2])
    others = [0, 1, 3, 4]
    second.share(others)
    # It can neither deal the shares of then again, nor make new ones without the sealing key.
    fake = FreshKeys(known, known)
    forger = second.join(2, keys=fake, own=first.adverts[2])
    for sealed in (first.server._sealed[2], forger.deal()[0]):
        with refusal(0, "shares of 'client-2' were altered, or made for another session", number=2):
            second.join(0).mask(
                VECTORS[0].astype(np.uint32), {**second.server.shares_for(0), 2: sealed[0]}
            )
    # So it is absent, and there are no masks between it and the others.
    sent = second.mask(others, VECTORS)
    mine, theirs = second.members[0], second.adverts
    alone = VECTORS[0].astype(np.uint32)
    peers = [i for i in others if i > 0]
    pairs = [
        session.pair_mask(mine.seat.root, (0, i), mine.keys.masking, theirs[i].masking)
        for i in peers
    ]
    session_mask = session.self_mask(mine.seat.root, 0, mine.secret)
    add_masks(alone, [session_mask, *pairs], [])
    np.testing.assert_array_equal(sent[0], alone)
    second.agree(others)
    second.unmask(others)
    assert (second.server.total() == np.uint32(4 * 987654321 % 2**32)).all()
