"""What a server, or a client, can try in a session that runs, and what it gets: nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from conf.errors import FedproofError
from task.identity import Identity
from task.secagg import session as sessions
from task.secagg.client import AGREE, Member
from task.secagg.masks import add_masks
from task.secagg.server import AbandonedError, Aggregator
from task.secagg.session import bits_of
from task.secagg.shamir import SIZE, combine
from tests.task.secagg.protocol import TERMS, Run, identity, refusal, require_sentence

VECTORS = np.full((40, 8), 987654321, np.uint64)


def masked(clients: int = 5, lost: tuple[int, ...] = (), **options: object) -> Run:
    """Return a session in which everybody but the lost ones has sent its vector."""
    run = Run(clients, **options)  # type: ignore[arg-type]
    run.share(range(clients))
    run.mask_sent = run.mask([i for i in range(clients) if i not in lost], VECTORS)
    return run


def alive(*members: int, count: int = 5) -> bytes:
    return bits_of([i in members for i in range(count)])


def sign(member: Member, told: bytes, who: int) -> bytes:
    return member.agree(told, identity(who))


def again(member: Member) -> Member:
    return Member.unpack(member.pack())


def divided(run: Run, cut: int, colluders: int) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Return the shares of client 0 that a server gets which tells clients different things.

    The first `cut` honest ones are told that it is there, the others that it is gone; the last
    `colluders` clients sign both, and give all that they hold.

    Returns
    -------
    dict and dict
        By point, shares of its self mask's secret, and of its mask key.
    """
    clients = run.clients
    honest, traitors = range(1, clients - colluders), range(clients - colluders, clients)
    groups = {
        alive(*range(clients), count=clients): [0, *honest[:cut]],
        alive(*range(1, clients), count=clients): list(honest[cut:]),
    }
    found: list[dict[int, bytes]] = []
    for told, group in groups.items():
        part = slice(0, SIZE) if not found else slice(SIZE, None)
        members, signatures = {i: again(run.members[i]) for i in group}, {}
        for i, member in members.items():
            with suppress(FedproofError):
                signatures[i] = sign(member, told, i)
        signatures |= {i: identity(i).sign(AGREE, run.session().root, told) for i in traitors}
        shares = {i + 1: run.members[i].shares[0][part] for i in traitors}
        for i, member in members.items():
            with suppress(FedproofError):
                shares[i + 1] = member.unmask(signatures, identity(i).public)[0]
        found.append(shares)
    there, gone = found
    return there, gone


def opened(run: Run, colluders: int) -> bool:
    """Tell whether a server with so many colluders, however it lies, opens client 0's vector."""
    needed = run.session().threshold
    return any(
        min(map(len, divided(run, cut, colluders))) >= needed
        for cut in range(run.clients - colluders)
    )


def victims_vector(run: Run, cut: int, colluders: int) -> np.ndarray:
    """Return client 0's vector as the server computes it from what `divided` gives."""
    root, needed = run.session().root, run.session().threshold
    there, gone = (dict(list(shares.items())[:needed]) for shares in divided(run, cut, colluders))
    key = X25519PrivateKey.from_private_bytes(combine(gone))
    words = run.mask_sent[0].copy()
    # All others have higher numbers: it added what it shares with them.
    pairs = (
        sessions.pair_mask(root, (0, i), key, run.adverts[i].masking) for i in range(1, run.clients)
    )
    add_masks(words, [], [sessions.self_mask(root, 0, combine(there)), *pairs])
    return words


def test_one_colluder_of_five_opens_a_vector_at_a_half_and_not_at_0_66():
    """Why active security needs more than two thirds: 2t <= h + c, here 2 * 3 <= 5 + 1."""
    half = masked(5, terms=replace(TERMS, threshold=0.5, active=False))
    found = victims_vector(half, cut=1, colluders=1)
    np.testing.assert_array_equal(found, VECTORS[0].astype(np.uint32))
    assert opened(half, 1) and not opened(half, 0)
    assert not opened(masked(5, terms=replace(TERMS, active=False)), 1)
    with refusal(0, "threshold=0.5 lets 1 colluding clients of 5 open a vector"):
        Run(5, terms=replace(TERMS, threshold=0.5)).join(0)


@pytest.mark.parametrize("clients", range(3, 9))
@pytest.mark.parametrize("share", [0.5, 0.6, 0.66, 0.75, 0.9])
def test_what_a_threshold_withstands(clients, share):
    """As many colluders as `Session.withstood` says open nothing, however the server divides."""
    run = masked(clients, terms=replace(TERMS, threshold=share, active=False))
    session = run.session()
    withstood = session.withstood
    for colluders in range(withstood + 1):
        assert not opened(run, colluders)
    overlap = clients > TERMS.min_cohort and withstood == 2 * session.threshold - clients - 1
    if overlap:
        assert opened(run, withstood + 1)
    # The docs' sentence on the default.
    if share == 0.66 and clients > TERMS.min_cohort:
        assert withstood >= 1 and withstood >= math.ceil(0.32 * clients) - 1


@pytest.mark.parametrize(
    ("clients", "terms", "refused"),
    [
        (5, {"threshold": 0.59}, True),
        (5, {"threshold": 0.6}, False),
        (4, {"threshold": 0.5}, False),
        (3, {"threshold": 0.5}, False),
        (3, {"min_cohort": 2}, True),
        (30, {"corrupt": 0.3}, False),
        (30, {"corrupt": 0.4}, True),
        (8, {"colluders": 2}, False),
        (8, {"colluders": 4}, True),
    ],
)
def test_a_session_that_does_not_withstand_its_colluders_is_refused(clients, terms, refused):
    run = Run(clients, terms=replace(TERMS, **terms))
    if not refused:
        run.join(0)
        return
    with refusal(0, f"aggregation.threshold=0.* lets [0-9]+ colluding clients of {clients} open"):
        run.join(0)
    # A server that is believed anyway is believed not to cheat.
    run.join(0, roster=None)


def test_one_key_is_one_client():
    run = Run(4)
    twin = run.keys[2].advert("client-2", identity(1))
    run.adverts[2] = twin
    run.server = Aggregator(run.session(), run.adverts)
    roster = {**run.roster, "client-2": identity(1).public}
    with refusal(0, "one identity key stands for two clients"):
        run.join(0, roster=roster)


@pytest.mark.parametrize("unknown", ["client-0", "client-3"])
def test_everybody_is_in_the_roster_oneself_too(unknown):
    run = Run(4)
    roster = {name: key for name, key in run.roster.items() if name != unknown}
    with refusal(0, f"the identity key of '{unknown}' is not in its roster"):
        run.join(0, roster=roster)


def test_each_group_alone_refuses_in_a_sentence():
    run = masked()
    told = {i: alive(0, 1, 2, 3, 4) if i < 3 else alive(1, 2, 3, 4) for i in range(5)}
    signatures = {i: sign(run.members[i], told[i], i) for i in range(5)}
    for i in range(5):
        with refusal(i, "[23] of it and its neighbours signed that the same vectors arrived, 4"):
            run.members[i].unmask(signatures, identity(i).public)
        with refusal(i, "asked for shares before it signed, or again"):
            run.members[i].unmask(signatures, identity(i).public)


def test_shares_come_once():
    run = masked()
    run.agree(range(5))
    signatures = run.server.signatures_for(0)
    assert set(run.members[0].unmask(signatures, identity(0).public)) == set(range(5))
    for member in (run.members[0], again(run.members[0])):
        with refusal(0, "asked for shares before it signed, or again"):
            member.unmask(signatures, identity(0).public)


def test_a_client_signs_once_also_after_it_has_revealed_shares():
    run = masked()
    with refusal(0, "asked for shares before it signed, or again"):
        run.members[0].unmask({}, identity(0).public)
    run.agree(range(5))
    for member in (run.members[0], again(run.members[0])):
        with refusal(0, "sign whose vectors arrived a second time"):
            sign(member, alive(0, 2, 3, 4), 0)
    run.unmask(range(5))
    for member in (run.members[0], again(run.members[0])):
        with refusal(0, "sign whose vectors arrived a second time"):
            sign(member, alive(0, 2, 3, 4), 0)


def test_one_vector_in_a_session():
    """Two vectors under one mask would show their difference."""
    run = masked()
    for member in (run.members[0], again(run.members[0])):
        words = VECTORS[1].astype(np.uint32)
        with refusal(0, "asked for a second vector"):
            member.mask(words, run.server.shares_for(0))
        assert (words == 987654321).all()


def test_no_second_vector_after_a_refused_one():
    run = Run(5)
    run.share(range(5))
    words = VECTORS[0].astype(np.uint32)
    with refusal(0, "1 of it and its neighbours dealt it shares, 4 are needed"):
        run.members[0].mask(words, {})
    with refusal(0, "asked for a second vector"):
        run.members[0].mask(words, run.server.shares_for(0))
    with refusal(0, "1 of it and its neighbours sent a vector"):
        sign(run.members[0], alive(0, 1, 2, 3, 4), 0)


def test_no_signature_before_the_vector():
    run = Run(5)
    run.share(range(5))
    with refusal(0, "asked to sign"):
        sign(run.members[0], alive(0, 1, 2, 3, 4), 0)


@pytest.mark.parametrize(
    "told, why",
    [
        (alive(1, 2, 3, 4), "its own vector is said not to have arrived"),
        (alive(), "its own vector is said not to have arrived"),
        (b"", "its own vector is said not to have arrived"),
        (alive(0, 1, 2, 3, 7, count=8), "its own vector is said not to have arrived"),
        (alive(0, 4), "only 2 vectors arrived, aggregation.min_cohort is 3"),
        (alive(0), "only 1 vectors arrived, aggregation.min_cohort is 3"),
        (alive(0, 1, 2), "3 of it and its neighbours sent a vector, 4 are needed"),
    ],
)
def test_lists_of_those_there_that_a_client_does_not_sign(told, why):
    run = masked()
    with refusal(0, why):
        sign(run.members[0], told, 0)


ALTERED: dict[str, Callable[[bytes], bytes]] = {
    "nonce": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "first": lambda data: data[:12] + bytes([data[12] ^ 1]) + data[13:],
    "second": lambda data: data[:50] + bytes([data[50] ^ 128]) + data[51:],
    "tag": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "short": lambda data: data[:-1],
    "long": lambda data: data + b"\0",
    "nothing": lambda data: b"",
    "nonce only": lambda data: data[:12],
    "random": lambda data: random.Random(1).randbytes(len(data)),
}


@pytest.mark.parametrize("how", ALTERED)
def test_altered_shares_are_refused(how):
    run = Run(5)
    run.share(range(5))
    sealed = run.server.shares_for(0)
    words = VECTORS[0].astype(np.uint32)
    with refusal(0, "the shares of 'client-3' were altered"):
        run.members[0].mask(words, {**sealed, 3: ALTERED[how](sealed[3])})
    # Nothing was signed or revealed, and nothing will be.
    assert set(run.members[0].shares) == {0}


def test_shares_go_one_way():
    run = Run(5)
    run.share(range(5))
    sealed = run.server._sealed
    for sender, data in ((3, sealed[4][0]), (3, sealed[3][1]), (3, sealed[0][3])):
        with refusal(0, "the shares of 'client-3' were altered"):
            again(run.members[0]).mask(VECTORS[0].astype(np.uint32), {sender: data})
    for stranger in (0, 5, -1):
        with refusal(0, "sent shares of a client that is not its neighbour"):
            again(run.members[0]).mask(VECTORS[0].astype(np.uint32), {stranger: sealed[3][0]})


@pytest.mark.parametrize("kept", range(4))
def test_too_few_signatures_open_nothing(kept):
    run = masked()
    run.agree(range(5))
    few = dict(list(run.server.signatures_for(0).items())[:kept])
    with refusal(0, f"{kept} of it and its neighbours signed that the same vectors arrived"):
        run.members[0].unmask(few, identity(0).public)


def test_signatures_of_outsiders_and_of_other_things_do_not_count():
    run, others = masked(), masked()
    run.agree(range(5))
    others.agree(range(5))
    mine, root = run.server.signatures_for(0), run.session().root
    told, server = alive(0, 1, 2, 3, 4), Identity()
    forged = {
        2: server.sign(AGREE, root, told),
        3: others.server.signatures_for(0)[3],  # of another session
        4: identity(4).sign(AGREE, root, alive(0, 1, 2, 4)),  # of another list
        **{i: server.sign(AGREE, root, told) for i in (5, 6, 7, -1)},
        8: mine[1],
    }
    forged |= {9: b"", 10: bytes(64)}
    with refusal(0, "2 of it and its neighbours signed that the same"):
        again(run.members[0]).unmask({0: mine[0], 1: mine[1], **forged}, identity(0).public)
    swapped = {1: mine[2], 2: mine[1], 3: mine[3], 4: mine[4], 0: mine[0]}
    with refusal(0, "3 of it and its neighbours signed that the same"):
        run.members[0].unmask(swapped, identity(0).public)


@pytest.mark.parametrize("owner, lost", [(1, ()), (4, (4,))])
def test_wrong_shares_at_the_end_are_noticed(owner, lost):
    """Of the self mask of one that is there, and of the mask key of one that is gone."""
    run = masked(lost=lost)
    there = [i for i in range(5) if i not in lost]
    run.agree(there)
    before = run.server._total.copy()
    for i in there:
        shares = run.members[i].unmask(run.server.signatures_for(i), identity(i).public)
        run.server.take_unmasking(i, {**shares, owner: bytes(SIZE)} if i == 2 else shares)
    with pytest.raises(
        AbandonedError, match=f"share of the mask of 'client-{owner}' is wrong"
    ) as e:
        run.server.total()
    require_sentence(e.value)
    np.testing.assert_array_equal(run.server._total, before)


def test_a_wrong_commitment_ends_the_session():
    run = Run(4)
    run.share(range(4))
    run.server._commitments[3] = sessions.commitment(run.session().root, 3, bytes(32))
    run.mask(range(4), VECTORS)
    run.agree(range(4))
    run.unmask(range(4))
    with pytest.raises(AbandonedError, match="share of the mask of 'client-3' is wrong"):
        run.server.total()


def test_shares_of_others_than_one_holds_are_not_taken(monkeypatch):
    monkeypatch.setattr(sessions, "degree", lambda *_: 6)
    run = Run(20)
    stranger = next(i for i in range(1, 20) if i not in run.server.session.graph[0])
    run.server.take_unmasking(0, {stranger: bytes(SIZE), 0: bytes(SIZE)})
    assert set(run.server._shares) == {0}


@pytest.mark.parametrize("share", [0.5, 0.66, 0.9])
def test_fewer_shares_than_the_threshold_are_another_secret(share):
    """What a server that lowers the threshold for itself computes is not the secret."""
    run = masked(7, terms=replace(TERMS, threshold=share, active=False))
    needed = run.session().threshold
    assert needed > 7 / 2
    held = {i + 1: run.members[i].shares[0][:SIZE] for i in range(7)}
    for count in range(1, 8):
        found = combine(dict(list(held.items())[:count]))
        assert (found == run.members[0].secret) == (count >= needed)


def test_declared_gaps_do_not_cut_the_circle(monkeypatch):
    """A server that says k/2 clients in a row are gone, twice, would see the sums of two arcs."""
    monkeypatch.setattr(sessions, "degree", lambda *_: 6)
    run = masked(40)
    graph, circle = run.session().graph, [0]
    while len(circle) < 40:  # who shares the most holders is next on the circle
        last = {circle[-1], *graph[circle[-1]]}
        rest = [i for i in graph[circle[-1]] if i not in circle]
        circle.append(max(rest, key=lambda i: len(last & {i, *graph[i]})))
    gone = {*circle[5:8], *circle[20:23]}
    told = alive(*(set(range(40)) - gone), count=40)
    with refusal(circle[8], "4 of it and its neighbours sent a vector, 5 are needed"):
        sign(run.members[circle[8]], told, circle[8])
