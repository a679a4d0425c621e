"""What a ledger's entries cost together, where clients of one source have no row in common.

A row is of one client of each partition. Releases of disjoint rows compose in parallel, so a row
bears, of each partition, the releases of its client there; those of different partitions add up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, product

from task.privacy.accounting import ORDERS, Spend, epsilon
from task.privacy.ledger import Entry

_MOST_ROWS = 64
"""Kinds of rows, by their client in each partition, whose cost is computed one by one."""


def composed_epsilon(entries: Iterable[Entry], delta: float) -> float:
    """Return the ε at `delta` of the row that most was released of, or a bound on it.

    Where clients are in so many partitions that rows cannot be gone through, it bounds the Rényi
    divergence of each order by the sum over partitions of the dearest client's (Mironov 2017,
    Propositions 1 and 3), which is up to a fifth too large.

    Parameters
    ----------
    entries : iterable of Entry
        Of one unit.
    delta : float
        Between 0 and 1.
    """
    partitions = _dearest(entries)
    if math.prod(len(clients) for clients in partitions) > _MOST_ROWS:
        return _bound(partitions, delta)
    return max(epsilon(chain.from_iterable(row), delta) for row in product(*partitions))


def _dearest(entries: Iterable[Entry]) -> list[list[list[Spend]]]:
    """Return the spends of each partition's clients, but of those of whom others spent all that."""
    spent: dict[str, dict[str, Counter[Spend]]] = {}
    for entry in entries:
        clients = spent.setdefault(entry.partition, {})
        clients.setdefault(entry.client, Counter())[_kind(entry.spend)] += entry.spend.steps
    return [
        [[replace(kind, steps=n) for kind, n in each.items()] for each in _maximal(clients)]
        for clients in (list(partition.values()) for partition in spent.values())
    ]


def _maximal(clients: Sequence[Counter[Spend]]) -> list[Counter[Spend]]:
    kept: list[Counter[Spend]] = []
    for each in sorted(clients, key=Counter.total, reverse=True):
        if not any(each <= other for other in kept):
            kept.append(each)
    return kept


def _kind(spend: Spend) -> Spend:
    return replace(spend, steps=1)


def _bound(partitions: Sequence[Sequence[Sequence[Spend]]], delta: float) -> float:
    import numpy as np
    from dp_accounting.rdp import compute_epsilon

    divergence = np.zeros(len(ORDERS))
    slack = 0.0
    for clients in partitions:
        divergence += np.max([_divergence(spends) for spends in clients], axis=0)
        slack += max(sum(spend.slack * spend.steps for spend in spends) for spends in clients)
    cost, _ = compute_epsilon(ORDERS, divergence, delta * math.exp(-slack))
    return float(cost) + 2 * slack


def _divergence(spends: Iterable[Spend]) -> Sequence[float]:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(orders=ORDERS)
    for spend in spends:
        event = GaussianDpEvent(spend.sigma)
        sampled = event if spend.rate == 1 else PoissonSampledDpEvent(spend.rate, event)
        accountant.compose(sampled, spend.steps)
    return accountant.rdp  # type: ignore[no-any-return]
