"""Encodings add up to what was encoded, within the noise that is accounted for."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import FedproofError
from task.privacy.discrete import mechanism as module
from task.privacy.discrete.accounting import Noise
from task.privacy.discrete.keystream import KeyStream
from task.privacy.discrete.mechanism import Mechanism, decode, design, encode, round_conditionally

SEED = b"round 3"


def updates(count: int, size: int, norm: float) -> torch.Tensor:
    drawn = torch.randn(count, size, generator=torch.Generator().manual_seed(count * size))
    return drawn * (norm / drawn.norm(dim=1, keepdim=True))


def added(encoded: list[np.ndarray], bits: int) -> np.ndarray:
    total = np.zeros(len(encoded[0]), np.uint64)
    for one in encoded:
        total += one
    return (total % (1 << bits)).astype(np.uint32)


def deviation(made: Mechanism, count: int) -> float:
    """Return the standard deviation of a decoded coordinate, at most."""
    return made.granularity * math.sqrt(count * (made.variance + 0.25))


@given(
    noise=st.sampled_from(Noise),
    size=st.integers(200, 3000),
    count=st.integers(1, 12),
    bits=st.integers(14, 32),
    multiplier=st.floats(0.05, 3.0),
    norm=st.sampled_from([0.0, 0.3, 1.0, 40.0]),
)
@settings(max_examples=60, deadline=None)
def test_sums_are_right_within_the_noise(noise, size, count, bits, multiplier, norm):
    made = design(size, 1.0, bits, count, multiplier, noise=noise)
    given_ = updates(count, size, norm)
    encoded = [encode(update, made, SEED) for update in given_]
    assert all(int(one.max()) < 2**bits for one in encoded)
    error = decode(added(encoded, bits), made, SEED) - given_.sum(0) / max(norm, 1.0)
    scale = deviation(made, count)
    assert abs(float(error.mean())) < 6 * scale / math.sqrt(size)
    assert float(error.abs().max()) < 8 * scale


@pytest.mark.parametrize("noise", Noise)
def test_decoding_is_unbiased_with_the_expected_variance(noise):
    size, count = 4096, 20
    made = design(size, 1.0, 16, count, 0.5, noise=noise)
    given_ = updates(count, size, 0.7)
    errors = []
    for turn in range(30):
        seed = bytes([turn])
        total = added([encode(update, made, seed) for update in given_], 16)
        errors.append(decode(total, made, seed) - given_.sum(0))
    error = torch.stack(errors).double()
    expected = deviation(made, count)
    noise_only = made.granularity * math.sqrt(made.variance * count)
    assert noise_only == pytest.approx(0.5)
    assert float(error.std()) == pytest.approx(expected, rel=0.01)
    means = error.mean(0) / (expected / math.sqrt(30))
    assert float(means.abs().max()) < 5 and abs(float(means.mean())) < 4 / math.sqrt(size)


def test_no_wrap_around_when_all_clients_agree_on_one_coordinate():
    """The worst sum there is, at the fewest bits that hold it."""
    size, count = 1024, 50
    update = torch.zeros(size)
    update[5] = 1.0
    made = design(size, 1.0, 12, count, 1.0)
    for turn in range(20):
        seed = bytes([turn])
        total = added([encode(update, made, seed) for _ in range(count)], 12)
        error = decode(total, made, seed) - count * update
        assert float(error.abs().max()) < 7 * deviation(made, count)


@given(
    values=st.lists(st.floats(-50, 50), min_size=1, max_size=64),
    slack=st.floats(0.0, 1.0),
    key=st.binary(min_size=32, max_size=32),
)
@settings(max_examples=100, deadline=None)
def test_roundings_keep_the_bound_and_move_less_than_one(values, slack, key):
    given_ = np.array(values)
    root = math.sqrt(len(values))
    norm = float(np.linalg.norm(given_))
    likely = norm**2 + root**2 / 4 + norm + root / 2
    bound = (1 - slack) * math.sqrt(likely) + slack * (norm + root)
    bound = max(bound, min(math.sqrt(likely), norm + root))
    rounded = round_conditionally(given_, bound + 1e-6, KeyStream(key))
    assert rounded.dtype == np.int64
    assert np.abs(rounded - given_).max() < 1
    assert np.linalg.norm(rounded) <= bound + 1e-6


def test_a_rounding_beyond_the_bound_is_drawn_again():
    """Of all roundings of (½, …, ½) only those with at most 3 ones have norm √3 or less."""
    stream = KeyStream(bytes(32))
    drawn = [round_conditionally(np.full(8, 0.5), math.sqrt(3) + 1e-6, stream) for _ in range(200)]
    assert {int(one.sum()) for one in drawn} == {0, 1, 2, 3}


def test_rounding_is_unbiased():
    values = np.tile([0.25, -3.9, 7.5, 2.0], 20_000)
    error = round_conditionally(values, math.inf, KeyStream(bytes(32))) - values
    for i in range(4):
        assert abs(error[i::4].mean()) < 4 * 0.5 / math.sqrt(20_000)


def test_the_vector_that_is_noised_never_exceeds_the_sensitivity(monkeypatch):
    """Norms up to ten million times the clip: what meets the noise is in the accounted bound."""
    seen = []

    def spied(values, bound, stream):
        seen.append(round_conditionally(values, bound, stream))
        return seen[-1].copy()

    monkeypatch.setattr(module, "round_conditionally", spied)
    made = design(3000, 1.0, 12, 5, 0.5)
    for norm in (0.1, 1.0, 1.0001, 1e7):
        encode(updates(1, 3000, norm)[0], made, SEED)
        assert np.linalg.norm(seen[-1]) <= made.release(5).sensitivity
    assert not np.any(round_conditionally(np.zeros(8), 1.0, KeyStream()))


def test_another_seed_decodes_nothing():
    made = design(2048, 1.0, 20, 1, 0.01)
    update = updates(1, 2048, 1.0)[0]
    encoded = encode(update, made, SEED)
    assert float((decode(encoded, made, SEED) - update).norm()) < 0.7
    assert float((decode(encoded, made, b"round 4") - update).norm()) > 1.2


def test_two_encodings_of_one_update_differ():
    made = design(64, 1.0, 16, 3, 1.0)
    assert not np.array_equal(
        encode(torch.ones(64), made, SEED), encode(torch.ones(64), made, SEED)
    )


def test_more_bits_are_finer_and_cost_less():
    made = [design(100_000, 1.0, bits, 100, 1.0) for bits in (14, 16, 20)]
    assert made[0].granularity > made[1].granularity > made[2].granularity
    assert made[0].inflation > made[1].inflation > made[2].inflation > 1
    assert made[1].inflation < 1.01


def test_noise_for_the_fewest_contributors_is_larger():
    everyone, fewest = design(64, 1.0, 20, 10, 1.0), design(64, 1.0, 20, 10, 1.0, contributors=5)
    for made, count in ((everyone, 10), (fewest, 5)):
        assert made.granularity**2 * made.variance * count == pytest.approx(1.0)


def test_what_does_not_fit_is_refused_in_one_sentence():
    with pytest.raises(FedproofError, match=r"sums of 1000 clients do not fit into 8 bits"):
        design(1_000_000, 1.0, 8, 1000, 1.0)
    with pytest.raises(FedproofError, match="raise privacy.bits"):
        design(1000, 1.0, 4, 100_000, 1.0)
    made = design(4, 1.0, 16, 3, 1.0)
    for bad in (math.nan, math.inf):
        with pytest.raises(FedproofError, match="NaN or infinite"):
            encode(torch.tensor([0.0, bad, 0.0, 0.0]), made, SEED)
    with pytest.raises(ValueError, match="shape"):
        encode(torch.zeros(5), made, SEED)
