"""Only the client that it is for gets the leader's key, and only from the leader."""

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import FedproofError
from task.he.key_exchange import offer, seal, unseal
from task.identity import Identity

IDENTITY = {name: Identity() for name in ("va", "ch", "hu", "server")}
PUBLIC = {name: identity.public for name, identity in IDENTITY.items()}
SECRET = b"the context with the secret key " * 100
ROUTE = ("run 7", "va", "ch")


def sealed_for(name: str = "ch", run: str = "run 7") -> tuple[X25519PrivateKey, bytes]:
    key, offered = offer(run, name, IDENTITY[name])
    return key, seal(SECRET, (run, "va", name), IDENTITY["va"], offered, PUBLIC[name])


@given(
    secret=st.binary(max_size=5000), run=st.text(max_size=9), names=st.tuples(st.text(), st.text())
)
@settings(max_examples=30, deadline=None)
def test_what_was_sealed_is_unsealed(secret, run, names):
    key, offered = offer(run, names[1], IDENTITY["ch"])
    sealed = seal(secret, (run, *names), IDENTITY["va"], offered, PUBLIC["ch"])
    assert unseal(sealed, (run, *names), key, PUBLIC["va"]) == secret
    assert not secret or len(secret) < 4 or secret not in sealed


@given(place=st.integers(0, 32 + 12 + len(SECRET) + 16 + 64 - 1), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_altered_messages_are_refused(place, bit):
    key, sealed = sealed_for()
    altered = bytearray(sealed)
    altered[place] ^= 1 << bit
    with pytest.raises(FedproofError, match="'ch' in run run 7 is not what the leader 'va' sent"):
        unseal(bytes(altered), ROUTE, key, PUBLIC["va"])


@pytest.mark.parametrize("length", [0, 1, 63, 64, 96, 108, 124, -1])
def test_cut_messages_are_refused(length):
    key, sealed = sealed_for()
    with pytest.raises(FedproofError, match="refused"):
        unseal(sealed[:length], ROUTE, key, PUBLIC["va"])


def test_messages_swapped_between_clients_are_refused():
    (ch, for_ch), (hu, for_hu) = sealed_for("ch"), sealed_for("hu")
    assert unseal(for_hu, ("run 7", "va", "hu"), hu, PUBLIC["va"]) == SECRET
    for sealed, key, name in ((for_hu, ch, "ch"), (for_ch, hu, "hu"), (for_ch, ch, "hu")):
        with pytest.raises(FedproofError, match="was sent to another client"):
            unseal(sealed, ("run 7", "va", name), key, PUBLIC["va"])


def test_messages_of_another_run_or_an_earlier_offer_are_refused():
    key, sealed = sealed_for()
    later, _ = offer("run 7", "ch", IDENTITY["ch"])
    for used, run in ((key, "run 8"), (later, "run 7")):
        with pytest.raises(FedproofError, match=f"in {run}|in run {run}"):
            unseal(sealed, (run, "va", "ch"), used, PUBLIC["va"])


def test_a_leader_who_is_none_is_refused():
    key, offered = offer("run 7", "ch", IDENTITY["ch"])
    forged = seal(SECRET, ROUTE, IDENTITY["server"], offered, PUBLIC["ch"])
    with pytest.raises(FedproofError, match="not what the leader 'va' sent"):
        unseal(forged, ROUTE, key, PUBLIC["va"])


def test_no_key_is_sent_to_an_offer_that_is_not_the_clients_own():
    _, own = offer("run 7", "ch", IDENTITY["ch"])
    forged = {
        "the server's": offer("run 7", "ch", IDENTITY["server"])[1],
        "another client's": offer("run 7", "hu", IDENTITY["ch"])[1],
        "of another run": offer("run 6", "ch", IDENTITY["ch"])[1],
        "with the key replaced": offer("run 7", "ch", IDENTITY["server"])[1][:32] + own[32:],
        "unsigned": own[:32],
        "with an empty signature": own[:32] + bytes(64),
        "too short": own[:20],
        "empty": b"",
        "a weak point": bytes(32) + IDENTITY["ch"].sign(b"anything"),
    }
    for offered in forged.values():
        with pytest.raises(
            FedproofError, match="offered for 'ch' is not signed by its identity key"
        ):
            seal(SECRET, ROUTE, IDENTITY["va"], offered, PUBLIC["ch"])


def test_names_cannot_be_shifted_from_one_field_to_the_next():
    key, offered = offer("run", "7 ch", IDENTITY["ch"])
    with pytest.raises(FedproofError, match="not signed"):
        seal(SECRET, ("run7", "va", " ch"), IDENTITY["va"], offered, PUBLIC["ch"])
    sealed = seal(SECRET, ("run", "va", "7 ch"), IDENTITY["va"], offered, PUBLIC["ch"])
    with pytest.raises(FedproofError, match="refused"):
        unseal(sealed, ("runva", "", "7 ch"), key, PUBLIC["va"])
