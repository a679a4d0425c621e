"""Who shares masks with whom: everybody in small cohorts, a random k-regular graph in large ones.

Bell et al. 2020, section 3: a Harary graph on a random order of the clients, whose degree k grows
with the logarithm of the cohort. It keeps three things unlikely: that corrupt neighbours, with what
honest ones who were told different things reveal, unmask a client; that too few neighbours are left
to unmask the sum; that those left fall into parts whose sums would show.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

SECURITY = 40
"""Sums of single parts, or single vectors, show with a probability below 2^-40."""
CORRECTNESS = 20
"""A session fails for want of shares with a probability below 2^-20."""


def threshold_of(holders: int, share: float) -> int:
    """Return how many of a client's `holders` (itself and its neighbours) unmask it.

    More than `share` of them, which is at least a half, so that no two groups of so many are
    disjoint.
    """
    return math.floor(share * holders) + 1


@lru_cache(maxsize=256)
def degree(clients: int, share: float, corrupt: float, dropout: float) -> int:
    """Return the smallest even number of neighbours that is enough, or all others.

    Parameters
    ----------
    clients : int
        Size of the cohort.
    share : float
        Of a client's holders that unmask it (`threshold_of`).
    corrupt : float
        Share of the cohort that may collude with the server.
    dropout : float
        Share of the cohort that may drop out.
    """
    others = clients - 1
    k = 2
    while k < others and not _enough(clients, k, threshold_of(k + 1, share), (corrupt, dropout)):
        k += 2
    return min(k, others)


def _enough(clients: int, k: int, threshold: int, shares: tuple[float, float]) -> bool:
    corrupt, dropout = shares
    others = clients - 1
    bad, gone = (math.ceil(part * others) for part in shares)
    # A server may tell some holders that a client is there and others that it is gone: corrupt
    # ones give it both shares, so it has enough of either with 2t <= k + 1 + corrupt.
    opened = clients * _chance(others, bad, k, range(2 * threshold - k - 1, k + 1))
    # The client's own share is its own, and is lost if it drops out.
    closed = clients * _chance(others, others - gone, k, range(threshold))
    # A Harary graph falls apart only where k/2 neighbours in a row are no longer honest or there.
    torn = clients * (corrupt + dropout) ** (k / 2)
    # Nor by what a server says is gone: who has nobody left on one side refuses.
    edge = threshold > k // 2 + 1
    return edge and max(opened, torn) <= 2.0**-SECURITY and closed <= 2.0**-CORRECTNESS


def _chance(others: int, marked: int, drawn: int, counts: range) -> float:
    """Return the chance that `drawn` of the others hold a number of marked ones in `counts`."""
    possible = (i for i in counts if 0 <= i <= marked and drawn - i <= others - marked)
    whole = _log_comb(others, drawn)
    return sum(
        math.exp(_log_comb(marked, i) + _log_comb(others - marked, drawn - i) - whole)
        for i in possible
    )


def _log_comb(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def neighbours(clients: int, k: int, seed: bytes) -> list[list[int]]:
    """Return each client's neighbours, sorted.

    Parameters
    ----------
    clients : int
        They are numbered from 0.
    k : int
        Neighbours of each: an even number, or all others.
    seed : bytes
        Of the order in which they are set around the circle; the same for everybody.
    """
    if k >= clients - 1:
        return [[j for j in range(clients) if j != i] for i in range(clients)]
    if k % 2:
        raise ValueError(f"{k} neighbours cannot be the nearest ones on either side")
    order = _order(clients, seed)
    around: list[list[int]] = [[] for _ in range(clients)]
    for place, client in enumerate(order):
        around[client] = _near(order, place, k)
    return around


def neighbours_of(client: int, clients: int, k: int, seed: bytes) -> list[int]:
    """Return the neighbours of one client, as `neighbours` does for all."""
    if k >= clients - 1:
        return [j for j in range(clients) if j != client]
    order = _order(clients, seed)
    return _near(order, order.index(client), k)


def _near(order: list[int], place: int, k: int) -> list[int]:
    steps = (step for near in range(1, k // 2 + 1) for step in (near, -near))
    return sorted(order[(place + step) % len(order)] for step in steps)


def _order(clients: int, seed: bytes) -> list[int]:
    """Return a permutation that the seed gives on every machine: sorted by hashes."""

    def key(client: int) -> bytes:
        return hashlib.sha256(seed + client.to_bytes(8, "big")).digest()

    return sorted(range(clients), key=key)
