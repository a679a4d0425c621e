"""Shamir's secret sharing (1979) over the largest prime below 2^256."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache

PRIME = 2**256 - 189
SIZE = 32
"""Bytes of a secret, and of a share."""


def new_secret() -> bytes:
    """Return 32 bytes from the operating system that can be shared: a number below `PRIME`."""
    while int.from_bytes(secret := secrets.token_bytes(SIZE), "big") >= PRIME:
        pass
    return secret


def split(secret: bytes, points: Sequence[int], threshold: int) -> list[bytes]:
    """Return the values of a random polynomial of degree ``threshold - 1`` that is `secret` at 0.

    Parameters
    ----------
    secret : bytes
        32 of them, below `PRIME` as a number.
    points : sequence of int
        Where it is evaluated: different from each other and from zero.
    threshold : int
        How many shares give the secret; fewer say nothing about it.

    Raises
    ------
    ValueError
        If the secret is too large, or there are fewer points than the threshold.
    """
    constant = int.from_bytes(secret, "big")
    if len(secret) != SIZE or constant >= PRIME:
        raise ValueError("a secret must be 32 bytes below the prime")
    if not 1 <= threshold <= len(set(points)) or len(set(points)) < len(points) or 0 in points:
        raise ValueError(f"{threshold} of {len(points)} points cannot be asked for")
    upper = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    shares = []
    for x in points:
        value = 0
        for coefficient in upper:
            value = (value + coefficient) * x % PRIME
        shares.append(((value + constant) % PRIME).to_bytes(SIZE, "big"))
    return shares


def combine(shares: Mapping[int, bytes]) -> bytes:
    """Return the secret that as many shares as the threshold, by their points, belong to.

    Wrong shares give a wrong secret: who combines must know how to tell.
    """
    points = tuple(sorted(shares))
    terms = (
        weight * int.from_bytes(shares[x], "big")
        for x, weight in zip(points, _at_zero(points), strict=True)
    )
    return (sum(terms) % PRIME).to_bytes(SIZE, "big")


@lru_cache(maxsize=64)
def _at_zero(points: tuple[int, ...]) -> tuple[int, ...]:
    """Return the Lagrange polynomials of some points at zero."""
    weights = []
    for x in points:
        above, below = 1, 1
        for other in points:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)
