"""Random rotations that spread a vector evenly over its coordinates: Hadamard times signs.

Kairouz, Liu, Steinke 2021, algorithm 1: a rotated coordinate of a vector of norm c is sub-Gaussian
with variance c²/d, so no coordinate stands out and few bits hold them all.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from task.privacy.discrete.keystream import KeyStream

_RADIX = 32
"""Size of the matrices that H_d is the Kronecker product of; fast on processors and GPUs."""


def padded(dimension: int) -> int:
    """Return the smallest power of two that is not below a dimension."""
    return 1 << (dimension - 1).bit_length()


def hadamard(vector: Tensor) -> Tensor:
    """Return the normalised Walsh-Hadamard transform, H x / √d; it is its own inverse.

    Parameters
    ----------
    vector : Tensor, shape (d,)
        d is a power of two.
    """
    size = len(vector)
    result, left = vector / math.sqrt(size), size
    # Each step transforms the leading index and makes it the last one; in the end they are back.
    while left > 1:
        radix = min(_RADIX, left)
        matrix = _matrix(radix).to(vector)
        result, left = result.view(radix, -1).t() @ matrix, left // radix
        result = result.reshape(-1)
    return result


def rotate(vector: Tensor, seed: bytes) -> Tensor:
    """Return H D x, padded with zeros to a power of two; D holds the signs that `seed` gives."""
    size = padded(len(vector))
    extended = torch.nn.functional.pad(vector, (0, size - len(vector)))
    return hadamard(extended * _signs(size, seed).to(vector))


def rotate_back(rotated: Tensor, dimension: int, seed: bytes) -> Tensor:
    """Return D H y without the padding."""
    signs = _signs(len(rotated), seed).to(rotated)
    return hadamard(rotated).mul_(signs)[:dimension]


def _signs(size: int, seed: bytes) -> Tensor:
    return torch.from_numpy(KeyStream.public("rotation", seed).signs(size))


@cache
def _matrix(size: int) -> Tensor:
    """Return the Hadamard matrix of a power of two, float64; entries are -1 and 1."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.kron(pair, matrix)
    return matrix
