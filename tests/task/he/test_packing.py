"""Sums of plaintexts hold the sums of what went in; anything else is refused, never wrapped."""

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import FedproofError
from task.he.approximate import ApproximatePacking
from task.he.cohort import Cohort
from task.he.exact import ExactPacking, batching_prime
from task.he.quantize import Quantizer


def updates(count: int, size: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(count + size).normal(0, scale, (count, size)).astype(np.float32)


def as_decrypted(packing: ExactPacking, total: np.ndarray) -> np.ndarray:
    """Return integers as TenSEAL does: modulo t, the upper half negative."""
    t = packing.parameters.plain_modulus
    return (total + t // 2) % t - t // 2


@given(
    clients=st.integers(1, 64),
    size=st.integers(1, 9000),
    bits=st.integers(2, 16),
    per_slot=st.integers(1, 2),
    heaviest=st.integers(1, 10_000),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_sums_are_those_of_the_integers_exactly(clients, size, bits, per_slot, heaviest, seed):
    random = np.random.default_rng(seed)
    quantizer = Quantizer(1.0, bits)
    cohort = Cohort(size, clients, heaviest, least=1)
    packing = ExactPacking(cohort, quantizer, per_slot=per_slot, degree=4096)
    count = random.integers(1, clients + 1)
    weights = random.integers(1, heaviest + 1, count).tolist()
    values = random.normal(0, 1, (count, size)).astype(np.float32)
    total = sum(packing.pack(v, w) for v, w in zip(values, weights, strict=True))
    found = packing.unpack(as_decrypted(packing, total))
    integers = sum(quantizer.encode(v, w / heaviest) for v, w in zip(values, weights, strict=True))
    assert (found.count, found.weight) == (count, sum(weights))
    expected = quantizer.decode(integers) * (heaviest / sum(weights))
    np.testing.assert_array_equal(found.values, expected)
    mean = np.average(np.clip(values.astype(np.float64), -1, 1), axis=0, weights=weights)
    assert np.abs(found.values - mean).max() <= found.error * (1 + 1e-9)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize(("bits", "per_slot", "clients"), [(16, 2, 100), (24, 1, 1000), (15, 2, 3)])
def test_the_largest_sums_there_are_do_not_wrap(sign, bits, per_slot, clients):
    cohort = Cohort(5, clients, 10_000)
    packing = ExactPacking(cohort, Quantizer(2.0, bits), per_slot=per_slot)
    values = np.full(5, sign * 1e30, np.float32)
    found = packing.unpack(as_decrypted(packing, clients * packing.pack(values, 10_000)))
    np.testing.assert_allclose(found.values, sign * 2.0, rtol=1e-12)
    assert found.weight == clients * 10_000


def test_what_does_not_fit_is_refused_before_the_run():
    cohort = Cohort(10, 1000, 100)
    with pytest.raises(FedproofError, match=r"1000 clients with 2 value\(s\) of 16 bits .* of 43"):
        ExactPacking(cohort, Quantizer(1.0, 16), per_slot=2)
    with pytest.raises(FedproofError, match=r"weights up to 1000000000000 need"):
        ExactPacking(Cohort(10, 1000, 10**12), Quantizer(1.0, 8))
    with pytest.raises(FedproofError, match=r"need 53\.3 bits of 53\.0"):
        ApproximatePacking(
            Cohort(10, 10_000, 10), 1.0, degree=4096, coefficient_bits=(54, 54), scale_bits=40
        )
    with pytest.raises(FedproofError, match="or choose aggregation.scheme=bfv"):
        ApproximatePacking(Cohort(10, 1000, 10**9), 1.0)


def packings(least: int = 2) -> list[ExactPacking | ApproximatePacking]:
    cohort = Cohort(5000, 8, 50, least)
    return [
        ExactPacking(cohort, Quantizer(1.0, 16), per_slot=2, degree=4096),
        ExactPacking(cohort, Quantizer(1.0, 16), degree=4096),
        ApproximatePacking(cohort, 1.0, degree=4096),
    ]


@pytest.mark.parametrize("packing", packings(), ids=["two", "one", "ckks"])
@pytest.mark.parametrize("weight", [0, -1, 51])
def test_weights_beyond_the_declared_are_refused(packing, weight):
    with pytest.raises(FedproofError, match=rf"weight {weight} .* 1 to 50"):
        packing.pack(updates(1, 5000)[0], weight)


@pytest.mark.parametrize("packing", packings(), ids=["two", "one", "ckks"])
def test_one_client_alone_is_not_shown(packing):
    one = packing.pack(updates(1, 5000)[0], 7)
    with pytest.raises(FedproofError, match=r"that of 1 client\(s\), but fewer than 2 are not"):
        packing.unpack(one)
    assert packing.unpack(one + one).count == 2


@pytest.mark.parametrize("packing", packings(), ids=["two", "one", "ckks"])
def test_damaged_sums_are_refused(packing):
    """A plaintext that decrypts to random numbers, a count that differs, a filling that is full."""
    random = np.random.default_rng(0)
    sound = sum(packing.pack(v, 3) for v in updates(3, 5000, 0.3))
    packing.unpack(sound)
    modulus = packing.parameters.plain_modulus or 2**40
    for row in range(len(sound)):
        bad = sound.copy()
        bad[row] = random.integers(0, modulus, bad.shape[1])
        with pytest.raises(FedproofError, match="damaged on its way"):
            packing.unpack(bad)
    other_count = 9 if len(sound) == 1 else 4
    for place, value in (
        ((0, 0), other_count),
        ((0, 1), 500),
        ((-1, -1), 1),
        ((0, 2), modulus - 1),
    ):
        bad = sound.copy()
        bad[place] = value
        with pytest.raises(FedproofError, match="damaged on its way"):
            packing.unpack(bad)
    with pytest.raises(FedproofError, match="damaged on its way"):
        packing.unpack(sound * 4)  # 12 updates of at most 8
    with pytest.raises(FedproofError, match="plaintexts, not those of 5000 values"):
        packing.unpack(np.concatenate([sound, sound]))


def test_ckks_sums_are_right_within_the_bound_that_they_state():
    random = np.random.default_rng(1)
    packing = ApproximatePacking(Cohort(3000, 20, 100), 1.0)
    values, weights = updates(20, 3000), random.integers(1, 101, 20).tolist()
    total = sum(packing.pack(v, w) for v, w in zip(values, weights, strict=True))
    off = 0.9 * packing.slot_error
    found = packing.unpack(total + random.uniform(-off, off, total.shape))
    mean = np.average(np.clip(values.astype(np.float64), -1, 1), axis=0, weights=weights)
    assert (found.count, found.weight) == (20, sum(weights))
    # The weight is a whole number, so that its own error is rounded away.
    assert np.abs(found.values - mean).max() <= found.error
    for bad in (np.nan, np.inf):
        broken = total.copy()
        broken[0, 5] = bad
        with pytest.raises(FedproofError, match="damaged"):
            packing.unpack(broken)


@given(bits=st.integers(30, 58), log=st.integers(10, 14))
@settings(max_examples=30, deadline=None)
def test_moduli_are_primes_that_allow_slots(bits, log):
    prime = batching_prime(bits, 2**log)
    assert prime % 2 ** (log + 1) == 1
    assert 2**bits < prime < 2**bits * 1.005
    assert sympy.isprime(prime)
