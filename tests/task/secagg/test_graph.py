"""Graphs of neighbours hold what their degree was chosen for."""

from __future__ import annotations

import math
import random
from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from task.secagg import graph as graphs
from task.secagg.graph import CORRECTNESS, SECURITY, degree, neighbours, neighbours_of, threshold_of

SHARE, CORRUPT, DROPOUT = 0.66, 0.1, 0.1


@pytest.mark.parametrize(("clients", "k"), [(5, 4), (60, 10), (61, 60), (200, 50)])
def test_one_client_s_neighbours_are_those_of_the_whole_graph(clients, k):
    seed = bytes(range(32))
    whole = neighbours(clients, k, seed)
    assert [neighbours_of(i, clients, k, seed) for i in range(clients)] == whole


def parts(graph: list[list[int]], left: Collection[int]) -> list[set[int]]:
    """Return the connected parts of a graph without all others."""
    rest, found = set(left), []
    while rest:
        part, edge = set(), [rest.pop()]
        while edge:
            part.add(node := edge.pop())
            edge += (new := rest.intersection(graph[node]))
            rest -= new
        found.append(part)
    return found


@given(st.integers(2, 60), st.integers(1, 20), st.binary(min_size=1, max_size=40))
def test_graphs_are_regular_symmetric_and_connected(clients, half, seed):
    k = min(2 * half, clients - 1)
    graph = neighbours(clients, k, seed)
    assert len(graph) == clients
    for i, near in enumerate(graph):
        assert near == sorted(set(near)) and len(near) == k
        assert i not in near
        assert all(i in graph[j] for j in near)
    assert len(parts(graph, range(clients))) == 1
    assert graph == neighbours(clients, k, seed)


def test_graphs_are_harary_graphs_in_an_order_of_the_seed():
    clients, k = 30, 6
    graphs_seen = [neighbours(clients, k, bytes([seed])) for seed in range(20)]
    assert len({str(graph) for graph in graphs_seen}) == 20
    for graph in graphs_seen:
        # Nearest on the circle: they share all holders but two.
        by_shared = [
            sum(len(({i} | set(graph[i])) ^ ({j} | set(graph[j]))) == 2 for j in graph[i])
            for i in range(clients)
        ]
        assert by_shared == [2] * clients


def test_orders_are_uniform():
    """Who sits next to whom does not depend on numbers."""
    counts = np.zeros(9)
    for seed in range(4000):
        for j in neighbours(10, 2, seed.to_bytes(4, "big"))[0]:
            counts[j - 1] += 1
    expected = 8000 / 9
    assert np.abs(counts - expected).max() < 7 * math.sqrt(expected)


def test_odd_degrees_below_all_others_are_refused():
    with pytest.raises(ValueError, match="7 neighbours"):
        neighbours(20, 7, b"x")


@given(st.integers(1, 2000), st.floats(0.5, 0.99))
def test_two_groups_of_the_threshold_are_never_disjoint(holders, share):
    assert 2 * threshold_of(holders, share) > holders
    assert threshold_of(holders, share) <= holders


@pytest.mark.parametrize("clients", range(2, 31))
def test_small_cohorts_are_complete(clients):
    assert degree(clients, SHARE, CORRUPT, DROPOUT) == clients - 1
    assert neighbours(clients, clients - 1, b"")[0] == list(range(1, clients))


def test_degrees_grow_with_the_cohort_and_what_may_go_wrong_in_it():
    sizes = (10, 20, 50, 100, 200, 500, 1000, 3000)
    found = [degree(clients, SHARE, CORRUPT, DROPOUT) for clients in sizes]
    assert found == sorted(found)
    assert found[-1] < 200  # with the logarithm
    for clients in (100, 1000):
        for chosen in ([(0.0, 0.1), (0.05, 0.1), (0.1, 0.1), (0.15, 0.1)],
                       [(0.05, 0.0), (0.05, 0.05), (0.05, 0.1), (0.05, 0.2)]):  # fmt: skip
            degrees = [degree(clients, SHARE, corrupt, dropout) for corrupt, dropout in chosen]
            assert degrees == sorted(degrees)


def tail(total: int, marked: int, drawn: int, least: int) -> float:
    """P(at least so many marked among those drawn without replacement), from binomials."""
    ways = sum(
        math.comb(marked, x) * math.comb(total - marked, drawn - x)
        for x in range(max(0, least), min(marked, drawn) + 1)
    )
    return ways / math.comb(total, drawn)


def holds(clients: int, k: int, share: float, corrupt: float, dropout: float) -> bool:
    """The conditions on a degree, computed anew."""
    others, t = clients - 1, math.floor(share * (k + 1)) + 1
    # Both of a client's secrets: t of the k + 1 holders reveal one, t the other, corrupt ones both.
    opened = clients * tail(others, math.ceil(corrupt * others), k, 2 * t - (k + 1))
    # Too few left: more than k - t of the k neighbours are gone.
    closed = clients * tail(others, math.ceil(dropout * others), k, k - t + 1)
    torn = clients * (corrupt + dropout) ** (k // 2)
    cut = 1 + k // 2 >= t
    return max(opened, torn) <= 2.0**-SECURITY and closed <= 2.0**-CORRECTNESS and not cut


@pytest.mark.parametrize("clients", [60, 100, 250, 1000])
@pytest.mark.parametrize(
    "share, corrupt, dropout", [(0.66, 0.1, 0.1), (0.6, 0.0, 0.2), (0.75, 0.05, 0.05)]
)
def test_degrees_are_the_smallest_that_hold(clients, share, corrupt, dropout):
    k = degree(clients, share, corrupt, dropout)
    assert k < clients - 1 and k % 2 == 0
    assert holds(clients, k, share, corrupt, dropout)
    assert not any(holds(clients, j, share, corrupt, dropout) for j in range(2, k, 2))


def test_a_threshold_of_half_takes_everybody():
    """One corrupt holder is then in both halves; and gaps of k/2 would cut the circle."""
    assert degree(200, 0.5, 0.1, 0.1) == 199
    assert degree(200, 0.5, 0.0, 0.0) == 199


def test_bounds_are_above_what_a_simulation_finds(monkeypatch):
    """With a security of a few bits, so that failures are seen."""
    monkeypatch.setattr(graphs, "SECURITY", 4)
    monkeypatch.setattr(graphs, "CORRECTNESS", 4)
    graphs.degree.cache_clear()
    clients, rng = 60, random.Random(4)
    k = degree(clients, SHARE, CORRUPT, DROPOUT)
    graphs.degree.cache_clear()
    assert k < 30
    t, failed = threshold_of(k + 1, SHARE), [0, 0, 0]
    for _ in range(2000):
        graph = neighbours(clients, k, rng.randbytes(16))
        bad, gone = (set(rng.sample(range(clients), 6)) for _ in range(2))
        failed[0] += any(len(bad & set(near)) >= 2 * t - k - 1 for near in graph)
        failed[1] += any(len(set(near) - gone) < t for near in graph)
        failed[2] += len(parts(graph, set(range(clients)) - bad - gone)) > 1
    assert all(count / 2000 <= 2.0**-4 for count in failed), failed


@pytest.mark.parametrize("clients", [100, 300])
def test_graphs_stay_connected_and_unmaskable(clients):
    k = degree(clients, SHARE, CORRUPT, DROPOUT)
    t, rng = threshold_of(k + 1, SHARE), random.Random(clients)
    for _ in range(100):
        graph = neighbours(clients, k, rng.randbytes(32))
        gone = set(rng.sample(range(clients), int(DROPOUT * clients)))
        bad = set(rng.sample(sorted(set(range(clients)) - gone), int(CORRUPT * clients)))
        assert len(parts(graph, set(range(clients)) - gone - bad)) == 1
        assert all(len(set(near) - gone) >= t for near in graph)
        assert all(len(set(near) & bad) < 2 * t - (k + 1) for near in graph)
