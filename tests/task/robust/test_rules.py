"""The rules equal ByzFL's and scikit-learn's on random updates, and closed forms elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from task.robust.anomaly import SUSPICIOUS, anomaly_scores
from task.robust.centered_clipping import centered_clipping
from task.robust.clipping import clip_norms
from task.robust.coordinates import mean_around_median, median, trimmed_mean
from task.robust.distances import squared_distances
from task.robust.flame import cosine_distances, flame, majority
from task.robust.fltrust import fltrust
from task.robust.geometric_median import geometric_median
from task.robust.krum import multi_krum, repeated_krum, scores
from task.robust.mixing import bucket_means, buckets, mix_neighbours

SIZES = st.tuples(st.integers(7, 15), st.integers(4, 40), st.integers(0, 10_000))


def random_updates(clients: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(clients, width, generator=generator, dtype=torch.float64)


def close(found: Tensor, expected: object) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected), rtol=1e-7, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(SIZES)
def test_equal_to_byzfl(size: tuple[int, int, int]) -> None:
    byzfl = pytest.importorskip("byzfl")
    updates, liars = random_updates(*size), 2
    count = len(updates)
    values = updates.numpy()
    close(median(updates), byzfl.Median()(values))
    close(trimmed_mean(updates, liars), byzfl.TrMean(f=liars)(values))
    close(mean_around_median(updates, count - liars), byzfl.Meamed(f=liars)(values))
    close(mix_neighbours(updates, liars), byzfl.NNM(f=liars)(values))
    close(clip_norms(updates, 1.5)[0], byzfl.Clipping(c=1.5)(values.copy()))
    # ByzFL starts at zero, and so does this.
    start = torch.zeros(updates.shape[1], dtype=torch.float64)
    close(geometric_median(updates, 0.1, 3, start)[0], byzfl.GeometricMedian(nu=0.1, T=3)(values))
    oracle = byzfl.CenteredClipping(L=2, tau=1.0)
    close(centered_clipping(updates, start, 1.0, 2)[0], oracle(values))
    # ByzFL's Krum counts one neighbour more than Blanchard et al.
    ranked = scores(squared_distances(updates), count - liars - 1)
    close(updates[ranked.argmin()], byzfl.Krum(f=liars)(values))
    best = ranked.argsort()[: count - liars]
    close(updates[best].mean(0), byzfl.MultiKrum(f=liars)(values))


@settings(max_examples=20, deadline=None)
@given(SIZES)
def test_flames_cluster_is_hdbscans(size: tuple[int, int, int]) -> None:
    from sklearn.cluster import HDBSCAN

    distances = cosine_distances(random_updates(*size)).numpy()
    count = len(distances)
    clusters = HDBSCAN(
        min_cluster_size=count // 2 + 1, min_samples=1, allow_single_cluster=True,
        metric="precomputed", copy=True,
    ).fit(distances)  # fmt: skip
    assert majority(distances) == np.flatnonzero(clusters.labels_ == 0).tolist()


@given(SIZES)
@settings(max_examples=20, deadline=None)
def test_no_rule_depends_on_the_order_or_the_place(size: tuple[int, int, int]) -> None:
    updates = random_updates(*size)
    order = torch.randperm(len(updates), generator=torch.Generator().manual_seed(size[2]))
    shift = random_updates(1, size[1], size[2] + 1)[0]
    rules = (
        median,
        lambda u: trimmed_mean(u, 2),
        lambda u: u[multi_krum(u, 2, 3)].mean(0),
        lambda u: geometric_median(u)[0],
    )
    for rule in rules:
        found = rule(updates)
        torch.testing.assert_close(rule(updates[order]), found, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(rule(updates + shift), found + shift, rtol=1e-5, atol=1e-5)


def test_krum_takes_the_nearest_to_its_neighbours() -> None:
    line = torch.tensor([[0.0], [1.0], [1.1], [1.3], [9.0]])
    # Two neighbours each: 1.1 has 0.01 + 0.04.
    assert multi_krum(line, 1, 1).tolist() == [2]
    assert scores(squared_distances(line), 2)[2] == pytest.approx(0.05, abs=1e-6)


def test_repeated_krum_leaves_the_liar_for_last() -> None:
    updates = torch.cat([0.01 * random_updates(6, 5, 1), 50 * torch.ones(1, 5).double()])
    assert 6 not in repeated_krum(updates, 1, 5).tolist()


def test_small_distances_survive_a_huge_liar() -> None:
    updates = torch.tensor([[1e-3, 0.0], [0.0, 1e-3], [1e12, 1e12]])
    assert squared_distances(updates)[0, 1].item() == pytest.approx(2e-6, rel=1e-6)


def test_the_geometric_median_of_a_majority_is_that() -> None:
    updates = torch.cat([torch.ones(3, 2), torch.tensor([[100.0, -5.0], [-7.0, 1e6]])]).double()
    place, weights = geometric_median(updates, smoothing=1e-9)
    torch.testing.assert_close(place, torch.ones(2).double(), rtol=1e-6, atol=0.0)
    assert weights[:3].sum() > 0.999
    assert weights.sum().item() == pytest.approx(1)


def test_clipping_to_the_median_norm() -> None:
    updates = torch.tensor([[3.0, 4.0], [0.6, 0.8], [30.0, 40.0]])
    clipped, which = clip_norms(updates)
    torch.testing.assert_close(clipped, torch.tensor([[3.0, 4.0], [0.6, 0.8], [3.0, 4.0]]))
    assert which.tolist() == [False, False, True]
    same, none = clip_norms(torch.zeros(3, 2))
    assert not same.any()
    assert not none.any()


def test_centered_clipping_goes_on_from_its_centre() -> None:
    updates = torch.tensor([[1.0], [1.0], [100.0]])
    moved, clipped = centered_clipping(updates, torch.zeros(1), radius=1.0)
    assert moved.item() == pytest.approx(1.0)
    assert clipped.tolist() == [False, False, True]
    again, _ = centered_clipping(updates, moved, radius=1.0)
    assert again.item() == pytest.approx(1 + 1 / 3)


def test_buckets_hold_everybody_once() -> None:
    groups = buckets(7, 3, np.random.default_rng(1))
    assert sorted(i for group in groups for i in group) == list(range(7))
    assert [len(group) for group in groups] == [3, 3, 1]
    updates = random_updates(7, 4, 2)
    for row, group in zip(bucket_means(updates, groups), groups, strict=True):
        close(row, updates[group].mean(0))


def test_fltrust_by_hand() -> None:
    # Cosines with the root (2, 0): 1, 0.6, -1. Lengths become 2.
    updates = torch.tensor([[10.0, 0.0], [3.0, 4.0], [-5.0, 0.0]])
    aggregate, trust = fltrust(updates, torch.tensor([2.0, 0.0]))
    assert trust.tolist() == pytest.approx([1.0, 0.6, 0.0])
    torch.testing.assert_close(aggregate, torch.tensor([(2 + 0.6 * 1.2) / 1.6, 0.6 * 1.6 / 1.6]))
    nothing, _ = fltrust(-updates[:1], torch.tensor([2.0, 0.0]))
    assert nothing.tolist() == [0.0, 0.0]
    zero, _ = fltrust(torch.zeros(2, 2), torch.tensor([2.0, 0.0]))
    assert zero.tolist() == [0.0, 0.0]


def test_flame_leaves_the_other_way_out_and_clips() -> None:
    honest = torch.tensor([[1.0, 0.0], [0.9, 0.1], [4.0, 0.1]])
    updates = torch.cat([honest, torch.tensor([[-1.0, 0.0]])])
    aggregate, admitted = flame(updates, 0.0, torch.Generator())
    assert admitted == [0, 1, 2]
    longest = updates.norm(dim=1).median()
    expected = torch.stack([u * min(1.0, float(longest / u.norm())) for u in honest]).mean(0)
    torch.testing.assert_close(aggregate, expected)


def test_anomaly_scores() -> None:
    honest = random_updates(9, 200, 3)
    found = anomaly_scores(
        torch.cat([honest, 3 * random_updates(1, 200, 4)]), np.random.default_rng(1)
    )
    assert found.argmax() == 9
    assert found[9] > SUSPICIOUS
    assert found[:9].abs().max() < SUSPICIOUS
    same = anomaly_scores(torch.zeros(5, 3), np.random.default_rng(1))
    assert same.tolist() == [0.0] * 5
