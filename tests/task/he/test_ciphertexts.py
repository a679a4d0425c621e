"""Encrypted sums are the sums, and what was changed on the way is refused."""

import hashlib

import numpy as np
import pytest

from conf.errors import FedproofError
from task.he.approximate import ApproximatePacking
from task.he.ciphertexts import EncryptedSum, Packing, decrypt, encrypt
from task.he.cohort import Cohort
from task.he.contexts import Key
from task.he.exact import ExactPacking
from task.he.quantize import Quantizer

pytest.importorskip("tenseal")

SIZE, HEAVIEST = 9000, 500
COHORT = Cohort(SIZE, 6, HEAVIEST)
SMALL = {"degree": 4096, "coefficient_bits": (54, 54)}
PACKINGS: dict[str, Packing] = {
    "bfv": ExactPacking(COHORT, Quantizer(1.0, 24), **SMALL),
    "bfv-8192": ExactPacking(COHORT, Quantizer(1.0, 24)),
    "bfv-two": ExactPacking(COHORT, Quantizer(1.0, 16), per_slot=2, **SMALL),
    "ckks": ApproximatePacking(COHORT, 1.0, **SMALL),
    "ckks-8192": ApproximatePacking(COHORT, 1.0),
}


def updates(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(0, 0.4, (count, SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def keys() -> dict[str, Key]:
    return {name: Key.create(packing.parameters) for name, packing in PACKINGS.items()}


@pytest.mark.parametrize("name", PACKINGS)
def test_decrypted_sums_are_the_plain_sums(name, keys):
    packing, weights = PACKINGS[name], [1, 500, 250, 3]
    total = EncryptedSum(packing.parameters, COHORT.clients)
    plain = 0
    for i, (update, weight) in enumerate(zip(updates(4), weights, strict=True)):
        encrypted = encrypt(packing, keys[name], update, weight)
        assert encrypted.dtype == np.uint8 and encrypted.ndim == 1
        total.add(encrypted, f"client {i}")
        plain = plain + packing.pack(update, weight)
    found, expected = decrypt(packing, keys[name], total.total()), packing.unpack(plain)
    assert (found.count, found.weight) == (expected.count, expected.weight) == (4, 754)
    if name.startswith("bfv"):
        np.testing.assert_array_equal(found.values, expected.values)
    else:
        # Both are rounded, so that most are equal and some lie on two sides of a middle.
        error = np.abs(found.values - expected.values).max()
        assert error <= 2 * found.error < 1e-6
    mean = np.average(np.clip(updates(4).astype(np.float64), -1, 1), axis=0, weights=weights)
    assert np.abs(found.values - mean).max() <= found.error * (1 + 1e-9)


def test_as_many_errors_as_are_allowed_add_up_to_nothing():
    """One ciphertext a hundred times, so that all its errors have one sign, in full slots."""
    cohort = Cohort(SIZE, 100, HEAVIEST)
    packing = ExactPacking(cohort, Quantizer(1.0, 16), per_slot=2)
    assert packing.parameters.plain_modulus > 2**46
    key, total = Key.create(packing.parameters), EncryptedSum(packing.parameters, 100)
    update = updates(1)[0]
    encrypted = encrypt(packing, key, update, HEAVIEST)
    for _ in range(100):
        total.add(encrypted, "va")
    found = decrypt(packing, key, total.total())
    expected = packing.unpack(100 * packing.pack(update, HEAVIEST))
    np.testing.assert_array_equal(found.values, expected.values)
    with pytest.raises(FedproofError, match="'va' is one more than the 100"):
        total.add(encrypted, "va")


def test_two_values_in_a_slot_halve_the_traffic(keys):
    one, two = (
        encrypt(PACKINGS[name], keys[name], updates(1)[0], 1).nbytes for name in ("bfv", "bfv-two")
    )
    assert two < 0.7 * one


def test_one_update_twice_encrypted_looks_different(keys):
    one, two = (encrypt(PACKINGS["bfv"], keys["bfv"], updates(1)[0], 1) for _ in range(2))
    half = min(len(one), len(two)) // 2
    assert np.mean(one[half : half + 10_000] == two[half : half + 10_000]) < 0.05


def refusal(packing: Packing, key: Key, parts: list[np.ndarray]) -> str | None:
    """Return why a sum of encrypted updates is refused, by the server or else by clients."""
    total = EncryptedSum(packing.parameters, 6)
    try:
        for i, part in enumerate(parts):
            total.add(part, f"client {i}")
        decrypt(packing, key, total.total())
    except FedproofError as error:
        assert str(error).endswith(".") and str(error).count(". ") == 0
        return str(error)
    return None


@pytest.mark.parametrize("name", ["bfv", "ckks"])
def test_altered_bytes_are_refused(name, keys):
    random = np.random.default_rng(7)
    sound = [encrypt(PACKINGS[name], keys[name], update, 9) for update in updates(2)]
    assert refusal(PACKINGS[name], keys[name], sound) is None
    for place in [0, 40, *random.integers(0, len(sound[1]), 20)]:
        bad = sound[1].copy()
        bad[place] ^= 1 << int(random.integers(0, 8))
        reason = refusal(PACKINGS[name], keys[name], [sound[0], bad])
        assert reason is not None and reason.startswith("client 'client 1': the ciphertexts are")


@pytest.mark.parametrize("name", ["bfv", "ckks"])
def test_alterations_with_the_right_digest_are_refused_or_without_effect(name, keys):
    """Low bits of a ciphertext are noise. Beyond that a change shows, but not to the server."""
    packing, key, random = PACKINGS[name], keys[name], np.random.default_rng(8)
    sound = [encrypt(packing, key, update, 9) for update in updates(2)]
    plain = packing.unpack(sum(packing.pack(update, 9) for update in updates(2)))
    refused = 0
    for place in [*range(32, 60), *random.integers(60, len(sound[1]), 30)]:
        bad = sound[1].copy()
        bad[place] ^= 1 << int(random.integers(0, 8))
        bad[:32] = np.frombuffer(hashlib.sha256(bad[32:].tobytes()).digest(), np.uint8)
        reason = refusal(packing, key, [sound[0], bad])
        refused += reason is not None
        if reason is None:
            total = EncryptedSum(packing.parameters, 6)
            for part in (sound[0], bad):
                total.add(part, "va")
            found = decrypt(packing, key, total.total())
            off = np.abs(found.values - plain.values).max()
            assert off <= (0.0 if name == "bfv" else 0.01)
    assert refused > 30


def test_after_a_refusal_the_sum_goes_on(keys):
    packing, key = PACKINGS["bfv"], keys["bfv"]
    total = EncryptedSum(packing.parameters, 6)
    sound = [encrypt(packing, key, update, 2) for update in updates(3)]
    total.add(sound[0], "va")
    refused = {
        "client 'ch': the ciphertexts are damaged": sound[1][:-3],
        "client 'ch': the ciphertexts": np.zeros(0, np.uint8),
        "client 'ch': the ciphertexts ": sound[1].astype(np.int16),
        "does not belong": encrypt(packing, Key.create(packing.parameters), updates(1)[0], 2),
        "the ciphertexts are": encrypt(PACKINGS["ckks"], keys["ckks"], updates(1)[0], 2),
        "ciphertexts are damaged or": encrypt(
            PACKINGS["bfv-8192"], keys["bfv-8192"], updates(1)[0], 2
        ),
        "another key or another model": encrypt(
            ExactPacking(Cohort(10, 6, HEAVIEST), Quantizer(1.0, 24), **SMALL),
            key,
            updates(1)[0][:10],
            2,
        ),
    }
    for reason, bad in refused.items():
        with pytest.raises(FedproofError, match=reason):
            total.add(bad, "ch")
    total.add(sound[1], "ch")
    total.add(sound[2], "hu")
    found = decrypt(packing, key, total.total())
    assert found.count == total.count == 3
    expected = packing.unpack(sum(packing.pack(update, 2) for update in updates(3)))
    np.testing.assert_array_equal(found.values, expected.values)


def test_sums_of_another_key_are_not_decrypted(keys):
    packing, key = PACKINGS["bfv"], keys["bfv"]
    total = EncryptedSum(packing.parameters, 6)
    for update in updates(2):
        total.add(encrypt(packing, key, update, 1), "va")
    other = Key.create(packing.parameters)
    with pytest.raises(FedproofError, match="another key than this client's"):
        decrypt(packing, other, total.total())
    other.name = key.name
    with pytest.raises(FedproofError, match="damaged on its way or made with another key"):
        decrypt(packing, other, total.total())


def test_updates_of_another_length_are_a_bug(keys):
    with pytest.raises(ValueError, match="not 9000 values"):
        encrypt(PACKINGS["bfv"], keys["bfv"], updates(1)[0][:1], 1)
