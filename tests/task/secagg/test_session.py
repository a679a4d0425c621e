"""What the clients of a session know alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import FedproofError
from task.identity import Identity
from task.secagg import session
from task.secagg.client import Member
from task.secagg.session import (
    Advert,
    FreshKeys,
    bits_of,
    cohort_of,
    commitment,
    members_of,
    pair_mask,
    self_mask,
    share_key,
)
from task.secagg.shamir import PRIME
from tests.task.secagg.protocol import TERMS, Run, identity

ROOTS = bytes(32), bytes(31) + b"\1"


@given(st.lists(st.booleans(), max_size=200))
def test_who_is_there_survives_being_packed(members):
    bits = bits_of(members)
    assert len(bits) == -(-len(members) // 8)
    assert members_of(bits) == {i for i, there in enumerate(members) if there}


def test_digests_that_travelled_are_cut_apart():
    digests = Run(4).session().digests
    assert cohort_of(b"".join(digests)) == digests
    assert cohort_of(b"") == ()


def test_adverts_and_keys_survive_being_packed():
    keys, owner = FreshKeys.generate(), Identity()
    advert = keys.advert("va", owner)
    again = Advert.unpack("va", advert.pack())
    assert again == advert and again.digest == advert.digest
    again.require_signed()
    assert FreshKeys.unpack(keys.pack()).advert("va", owner) == advert


@pytest.mark.parametrize("length", [0, 1, 31, 32, 95, 96, 100, 159, 170])
def test_adverts_cut_short_are_not_signed(length):
    data = FreshKeys.generate().advert("va", Identity()).pack()
    assert len(data) == 160
    if length < len(data):
        with pytest.raises(FedproofError, match="keys of client 'va' are not signed"):
            Advert.unpack("va", data[:length]).require_signed()
    else:
        Advert.unpack("va", data + bytes(10)).require_signed()


def test_digests_tell_all_of_an_advert_apart():
    advert = FreshKeys.generate().advert("va", Identity())
    other = FreshKeys.generate().advert("vb", Identity())
    names = ("client", "identity", "masking", "sealing", "signature")
    changed = [replace(advert, **{name: getattr(other, name)}) for name in names]
    swapped = replace(advert, masking=advert.sealing, sealing=advert.masking)
    assert len({one.digest for one in (advert, swapped, *changed)}) == 7
    with pytest.raises(FedproofError, match="not signed"):
        swapped.require_signed()


def test_mask_keys_can_be_shared(monkeypatch):
    """One in 2^248 cannot, as it is above the prime."""
    above = X25519PrivateKey.from_private_bytes(b"\xff" * 32)
    below = X25519PrivateKey.generate()
    drawn = iter([above, below, X25519PrivateKey.generate()])
    monkeypatch.setattr(X25519PrivateKey, "generate", lambda: next(drawn))
    assert FreshKeys.generate().masking is below
    assert int.from_bytes(below.private_bytes_raw(), "big") < PRIME


def test_two_clients_agree_and_nobody_else():
    a, b, c = (X25519PrivateKey.generate() for _ in range(3))
    public = {key: key.public_key().public_bytes_raw() for key in (a, b, c)}
    seed = pair_mask(ROOTS[0], (3, 8), a, public[b])
    assert seed == pair_mask(ROOTS[0], (8, 3), b, public[a])
    assert share_key(ROOTS[0], (3, 8), a, public[b]) == share_key(ROOTS[0], (3, 8), b, public[a])
    others = [
        pair_mask(ROOTS[1], (3, 8), a, public[b]),
        pair_mask(ROOTS[0], (3, 9), a, public[b]),
        pair_mask(ROOTS[0], (38, 0), a, public[b]),
        pair_mask(ROOTS[0], (3, 8), a, public[c]),
        share_key(ROOTS[0], (3, 8), a, public[b]),
        share_key(ROOTS[0], (8, 3), a, public[b]),
        share_key(ROOTS[1], (3, 8), a, public[b]),
    ]
    assert len({seed, *others}) == 8 and {len(s) for s in others} == {32}


def test_what_is_derived_from_a_secret_is_for_one_purpose():
    secret = bytes(range(32))
    found = [f(root, i, secret) for f in (self_mask, commitment) for root in ROOTS for i in (0, 1)]
    assert len(set(found)) == 8 and secret not in found


def test_seeds_are_hkdf_of_what_was_agreed():
    info = b"".join(len(part).to_bytes(8, "big") + part for part in (b"self mask", ROOTS[1], b"12"))
    expected = HKDF(SHA256(), 32, salt=None, info=info).derive(b"s" * 32)
    assert self_mask(ROOTS[1], 12, b"s" * 32) == expected


def test_everybody_computes_the_same_session():
    run = Run(5)
    one, other = run.session(), run.session()
    assert one is not other
    assert (one.root, one.graph, one.threshold) == (other.root, other.graph, other.threshold)
    assert len(one) == 5 and one.threshold == 4


def test_thresholds_follow_the_graph(monkeypatch):
    monkeypatch.setattr(session, "degree", lambda *_: 10)
    assert Run(40).session().threshold == int(0.66 * 11) + 1
    assert Run(40, replace(TERMS, threshold=0.5)).session().threshold == 6


def test_members_survive_being_saved_at_any_time():
    run = Run(4)
    member = run.join(0)
    texts = [member.pack()]
    sealed, _ = member.deal()
    texts.append(member.pack())
    run.members[0] = member
    run.server.take_shares(0, sealed, b"")
    run.share([1, 2, 3])
    words = [np.arange(8, dtype=np.uint32) for _ in range(2)]
    saved = Member.unpack(member.pack())
    for one, vector in zip((member, saved), words, strict=True):
        one.mask(vector, run.server.shares_for(0))
    assert (words[0] == words[1]).all() and member.pack() == saved.pack()
    texts.append(member.pack())
    member.agree(bits_of([True] * 4), identity(0))
    texts.append(member.pack())
    assert len(set(texts)) == 4
    for text in texts:
        assert Member.unpack(text).pack() == text
        assert Member.unpack(text).seat == member.seat
