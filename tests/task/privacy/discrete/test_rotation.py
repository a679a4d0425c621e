"""The rotation is orthonormal, its own inverse up to signs, and spreads what it turns."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard as matrix

from task.privacy.discrete.rotation import hadamard, padded, rotate, rotate_back


@pytest.mark.parametrize("log", range(12))
def test_the_transform_is_the_matrix(log):
    vector = torch.randn(2**log, dtype=torch.float64)
    expected = torch.from_numpy(matrix(2**log)).double() @ vector / math.sqrt(2**log)
    torch.testing.assert_close(hadamard(vector), expected)
    torch.testing.assert_close(hadamard(hadamard(vector)), vector)


@given(size=st.integers(1, 3000), seed=st.binary(max_size=40), at=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_rotations_keep_norms_and_inner_products_and_can_be_undone(size, seed, at):
    generator = torch.Generator().manual_seed(at)
    a, b = torch.randn(2, size, dtype=torch.float64, generator=generator)
    kept = a.clone()
    there, also = rotate(a, seed), rotate(b, seed)
    assert there.shape == (padded(size),)
    assert float(there @ also) == pytest.approx(float(a @ b), abs=1e-9)
    torch.testing.assert_close(rotate_back(there, size, seed), a)
    assert torch.equal(a, kept)


def test_one_large_coordinate_becomes_many_small_ones():
    vector = torch.zeros(5000, dtype=torch.float64)
    vector[17] = 3.0
    there = rotate(vector, b"round 1")
    assert float(there.abs().max()) == pytest.approx(3.0 / math.sqrt(8192))
    assert not torch.equal(there, rotate(vector, b"round 2"))


def test_dimensions_are_padded_to_powers_of_two():
    assert [padded(d) for d in (1, 2, 3, 1024, 1025, 1_000_000)] == [1, 2, 4, 1024, 2048, 2**20]
