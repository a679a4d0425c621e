"""Masks are AES-256 in counter mode, and come off again."""

from __future__ import annotations

import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given, settings
from hypothesis import strategies as st

from task.secagg import masks
from task.secagg.masks import TYPES, add_masks

PIECE = masks._PIECE
BITS = pytest.mark.parametrize("bits", [16, 32])


def mask(seed: bytes, size: int, bits: int) -> np.ndarray:
    """Encrypt the block numbers one by one."""
    count = -(-size * bits // 128)
    numbers = b"".join(i.to_bytes(16, "big") for i in range(count))
    stream = Cipher(AES(seed), ECB()).encryptor().update(numbers)
    words = [
        int.from_bytes(stream[i : i + bits // 8], "little")
        for i in range(0, len(stream), bits // 8)
    ]
    return np.array(words[:size], np.uint64)


def around(bits: int) -> list[int]:
    piece = PIECE // (bits // 8)
    return [0, 1, 3, 7, 9, piece - 1, piece, piece + 1, 2 * piece + 5]


def test_pieces_are_whole_blocks():
    assert PIECE % 16 == 0 and {kind.itemsize for kind in TYPES.values()} == {2, 4}
    assert TYPES[16].str == "<u2" and TYPES[32].str == "<u4"


@BITS
def test_masks_are_those_of_a_block_cipher_whatever_the_length(bits):
    seed = os.urandom(32)
    longest = mask(seed, around(bits)[-1], bits)
    for size in around(bits):
        words = np.zeros(size, TYPES[bits])
        add_masks(words, [seed], [])
        np.testing.assert_array_equal(words, longest[:size])


@BITS
def test_masks_are_added_and_subtracted_modulo_2_b(bits):
    seeds = [os.urandom(32) for _ in range(5)]
    start = np.random.default_rng(1).integers(0, 2**bits, 1001, dtype=np.uint64)
    words = start.astype(TYPES[bits])
    add_masks(words, seeds[:3], seeds[3:])
    expected = start.astype(object)
    for i, seed in enumerate(seeds):
        expected = expected + (1 if i < 3 else -1) * mask(seed, 1001, bits).astype(object)
    np.testing.assert_array_equal(words, (expected % 2**bits).astype(np.uint64))
    add_masks(words, iter(seeds[3:]), iter(seeds[:3]))
    np.testing.assert_array_equal(words, start)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([16, 32]), st.integers(0, 70_000), st.integers(1, 4), st.randoms())
def test_what_is_added_and_subtracted_is_gone(bits, size, count, rng):
    seeds = [os.urandom(32) for _ in range(count)]
    start = np.full(size, rng.randrange(2**bits), TYPES[bits])
    words = start.copy()
    add_masks(words, seeds, ())
    if size > 16:
        assert (words != start).mean() > 0.5
    add_masks(words, (), rng.sample(seeds, count))
    np.testing.assert_array_equal(words, start)
    add_masks(words, seeds, seeds)
    np.testing.assert_array_equal(words, start)


@BITS
def test_parts_of_a_larger_array_are_masked_in_place(bits):
    whole = np.zeros(3000, TYPES[bits])
    add_masks(whole[1000:2001], [bytes(32)], [])
    assert not whole[:1000].any() and not whole[2001:].any()
    np.testing.assert_array_equal(whole[1000:2001], mask(bytes(32), 1001, bits))


@BITS
def test_different_seeds_give_different_masks(bits):
    found = []
    for seed in (bytes(32), bytes(31) + b"\1", os.urandom(32)):
        words = np.zeros(1000, TYPES[bits])
        add_masks(words, [seed], [])
        found.append(words)
    assert all((found[i] == found[j]).sum() < 5 for i, j in ((0, 1), (0, 2), (1, 2)))
