"""The secret key is with clients only, and of the run's own parameters."""

import sys

import pytest

from conf.errors import FedproofError
from task.he.contexts import Key, Parameters, Scheme, library, require_no_key, server_context
from task.he.exact import batching_prime

tenseal = pytest.importorskip("tenseal")

BFV = Parameters(Scheme.bfv, 4096, (54, 54), batching_prime(32, 4096))
CKKS = Parameters(Scheme.ckks, 4096, (54, 54), scale_bits=40)
VECTORS = {BFV: (tenseal.bfv_vector, [1, 2]), CKKS: (tenseal.ckks_vector, [1.0, 2.0])}


@pytest.mark.parametrize("parameters", [BFV, CKKS], ids=["bfv", "ckks"])
def test_the_servers_context_has_no_key_at_all(parameters):
    context = server_context(parameters)
    assert context.is_private() is False
    assert not context.has_secret_key()
    make, values = VECTORS[parameters]
    with pytest.raises(ValueError, match="doesn't support encryption"):
        make(context, values)
    key = Key.create(parameters)
    sent = make(key.context, values).serialize()
    received = (tenseal.bfv_vector_from if parameters is BFV else tenseal.ckks_vector_from)(
        context, sent
    )
    with pytest.raises(ValueError, match="secret_key"):
        received.decrypt()


def test_a_server_with_a_key_is_stopped():
    with pytest.raises(FedproofError, match="which only clients may have"):
        require_no_key(Key.create(BFV).context)


@pytest.mark.parametrize("parameters", [BFV, CKKS], ids=["bfv", "ckks"])
def test_keys_travel_as_bytes(parameters):
    made = Key.create(parameters)
    received = Key(made.data, parameters)
    assert received.name == made.name != Key.create(parameters).name
    make, values = VECTORS[parameters]
    sent = make(made.context, values).serialize()
    load = tenseal.bfv_vector_from if parameters is BFV else tenseal.ckks_vector_from
    assert load(received.context, sent).decrypt() == pytest.approx(values, abs=1e-6)


def test_keys_of_other_parameters_and_no_keys_are_refused():
    other = Parameters(Scheme.bfv, 4096, (54, 54), batching_prime(33, 4096))
    without = server_context(BFV).serialize(save_public_key=False)
    for data in (Key.create(other).data, Key.create(CKKS).data, without):
        with pytest.raises(FedproofError, match="not one for this run's parameters"):
            Key(data, BFV)
    for data in (b"nothing", Key.create(BFV).data[:1000]):
        with pytest.raises(FedproofError, match="damaged"):
            Key(data, BFV)


def test_parameters_without_128_bits_of_security_are_refused():
    with pytest.raises(FedproofError, match=r"degree 2048 .* choose a larger aggregation.degree"):
        server_context(Parameters(Scheme.bfv, 2048, (54, 54), batching_prime(32, 2048)))


def test_without_the_library_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "tenseal", None)
    with pytest.raises(FedproofError, match="uv sync --extra he"):
        library()
