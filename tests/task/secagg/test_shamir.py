"""Shares give the secret from the threshold on, and nothing about it below."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from task.secagg import shamir
from task.secagg.shamir import PRIME, SIZE, combine, new_secret, split

SECRETS = st.integers(0, PRIME - 1)


def at_zero(points: dict[int, int], x: int = 0) -> int:
    """Evaluate the polynomial through some points over the rationals, then modulo the prime."""
    total = Fraction(0)
    for i, y in points.items():
        term = Fraction(y)
        for j in points:
            if j != i:
                term *= Fraction(x - j, i - j)
        total += term
    return total.numerator * pow(total.denominator, -1, PRIME) % PRIME


def numbers(shares: dict[int, bytes]) -> dict[int, int]:
    return {x: int.from_bytes(share, "big") for x, share in shares.items()}


@st.composite
def sharings(draw: st.DrawFn) -> tuple[bytes, dict[int, bytes], int]:
    secret = draw(SECRETS).to_bytes(SIZE, "big")
    points = draw(st.lists(st.integers(1, 10**6), min_size=1, max_size=8, unique=True))
    threshold = draw(st.integers(1, len(points)))
    shares = dict(zip(points, split(secret, points, threshold), strict=True))
    return secret, shares, threshold


def test_the_prime_is_the_largest_below_2_256():
    """By Fermat's test to several bases, which numbers in between fail."""
    assert all(pow(base, PRIME - 1, PRIME) == 1 for base in (2, 3, 5, 7, 11, 13))
    assert all(pow(2, n - 1, n) != 1 for n in range(PRIME + 2, 2**256, 2))


@given(sharings(), st.randoms(use_true_random=False))
def test_any_shares_from_the_threshold_on_give_the_secret(sharing, rng):
    secret, shares, threshold = sharing
    chosen = rng.sample(sorted(shares), rng.randint(threshold, len(shares)))
    some = {x: shares[x] for x in chosen}
    assert combine(some) == secret
    assert at_zero(numbers(some)).to_bytes(SIZE, "big") == secret
    assert all(len(share) == SIZE for share in shares.values())


def test_every_subset_of_a_small_sharing():
    secret, points = new_secret(), range(1, 8)
    shares = dict(zip(points, split(secret, points, 5), strict=True))
    for count in range(1, 8):
        for chosen in combinations(points, count):
            found = combine({x: shares[x] for x in chosen})
            assert (found == secret) == (count >= 5)


@given(sharings(), SECRETS)
def test_fewer_shares_fit_every_secret(sharing, other):
    """For each other secret there is a polynomial of the right degree through the same shares."""
    _, shares, threshold = sharing
    few = dict(list(numbers(shares).items())[: threshold - 1])
    through = {0: other, **few}
    # It has as many points as a polynomial of degree threshold - 1 takes: one goes through them,
    # and shares at other points follow from it.
    assert len(through) == threshold
    more = {**few, **{x: at_zero(through, x) for x in range(10**6 + 1, 10**6 + 4)}}
    items = [(x, y.to_bytes(SIZE, "big")) for x, y in more.items()]
    for chosen in (items[:threshold], items):
        assert combine(dict(chosen)) == other.to_bytes(SIZE, "big")


def test_single_shares_are_uniform_whatever_the_secret():
    for secret in (bytes(SIZE), (PRIME - 1).to_bytes(SIZE, "big")):
        firsts: Counter[int] = Counter()
        for _ in range(4000):
            firsts.update(share[0] >> 4 for share in split(secret, [1, 2, 3], 2)[:1])
        assert stats.chisquare([firsts[i] for i in range(16)]).pvalue > 1e-9


def test_a_wrong_share_gives_a_wrong_secret():
    secret, points = new_secret(), [1, 2, 3, 4]
    shares = dict(zip(points, split(secret, points, 3), strict=True))
    wrong = {**shares, 2: bytes(SIZE)}
    assert combine(wrong) != secret
    assert combine({x: shares[x] for x in (1, 3, 4)}) == secret


def test_polynomials_differ_from_sharing_to_sharing():
    secret = new_secret()
    dealt = [tuple(split(secret, [1, 2, 3], 2)) for _ in range(50)]
    assert len({share for shares in dealt for share in shares}) == 150


@pytest.mark.parametrize(
    "secret, points, threshold",
    [
        (bytes(SIZE), [1, 2], 3),
        (bytes(SIZE), [1, 2], 0),
        (bytes(SIZE), [1, 1, 2], 2),
        (bytes(SIZE), [0, 1, 2], 2),
        (bytes(SIZE), [], 1),
        (bytes(31), [1, 2, 3], 2),
        (b"\xff" * SIZE, [1, 2, 3], 2),
        (PRIME.to_bytes(SIZE, "big"), [1, 2, 3], 2),
    ],
)
def test_what_cannot_be_shared_is_refused(secret, points, threshold):
    with pytest.raises(ValueError):
        split(secret, points, threshold)


def test_the_largest_secret_can_be_shared():
    secret = (PRIME - 1).to_bytes(SIZE, "big")
    assert combine(dict(zip([1, 2], split(secret, [1, 2], 2), strict=True))) == secret


def test_new_secrets_are_below_the_prime(monkeypatch):
    drawn = iter([b"\xff" * SIZE, PRIME.to_bytes(SIZE, "big"), (PRIME - 1).to_bytes(SIZE, "big")])
    monkeypatch.setattr(shamir.secrets, "token_bytes", lambda size: next(drawn))
    assert int.from_bytes(new_secret(), "big") == PRIME - 1
