"""Every rule of the tree, as a strategy on whole answers, equals an oracle on random updates.

The oracle is ByzFL's aggregator where it has one, with the number of liars that is assumed; else
the paper's algorithm, written out in numpy as slowly as it reads.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedMedian, FedTrimmedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.compose import CONFIG_DIR, compose
from server_app.compat import adopt_identity
from server_app.strategies._robust import Robust
from task.registry import find

CLIENTS, LIARS = 15, 3
"""Of fewer, repeated Krum compares single distances in the end, and each is that of two clients."""
START = np.linspace(-1.0, 1.0, 6)


def built(*overrides: str) -> Any:
    chosen = compose(overrides).strategy
    return find("server_app.strategies", chosen.name).build(chosen.options)


def robust() -> set[str]:
    names = {path.stem for path in (CONFIG_DIR / "strategy").glob("*.yaml")}
    kinds = (Robust, FedMedian, FedTrimmedAvg)
    return {name for name in names if isinstance(built(f"strategy={name}"), kinds)}


def byzfl(name: str, **options: Any) -> Callable[[Any], Any]:
    def oracle(updates: Any) -> Any:
        return getattr(pytest.importorskip("byzfl"), name)(**options)(updates)

    return oracle


def krums(updates: Any, neighbours: int) -> Any:
    """Return each update's squared distance to its nearest neighbours, added up."""
    apart = ((updates[:, None] - updates[None]) ** 2).sum(2)
    return np.array([np.sort(np.delete(row, i))[:neighbours].sum() for i, row in enumerate(apart)])


def krum(updates: Any, chosen: int = 1) -> Any:
    best = krums(updates, len(updates) - LIARS - 2).argsort()[:chosen]
    return updates[best].mean(0)


def bulyan(updates: Any) -> Any:
    left, taken = list(range(len(updates))), []
    while len(taken) < CLIENTS - 2 * LIARS:
        among = krums(updates[left], len(left) - LIARS - 2)
        taken.append(left.pop(int(among.argmin())))
    chosen = updates[taken]
    nearest = np.abs(chosen - np.median(chosen, axis=0)).argsort(axis=0)[: CLIENTS - 4 * LIARS]
    return np.take_along_axis(chosen, nearest, axis=0).mean(0)


def flame(updates: Any) -> Any:
    """Return FLAME's aggregate without noise."""
    from sklearn.cluster import HDBSCAN

    unit = updates / np.linalg.norm(updates, axis=1, keepdims=True)
    clusters = HDBSCAN(
        min_cluster_size=CLIENTS // 2 + 1, min_samples=1, allow_single_cluster=True,
        metric="precomputed", copy=True,
    ).fit(np.clip(1 - unit @ unit.T, 0, None))  # fmt: skip
    admitted = np.flatnonzero(clusters.labels_ == 0)
    lengths = np.linalg.norm(updates, axis=1)
    shares = np.minimum(1, np.sort(lengths)[(CLIENTS - 1) // 2] / lengths)
    return (updates * shares[:, None])[admitted].mean(0)


def fltrust(updates: Any) -> Any:
    root = np.arange(1.0, 7.0)
    lengths, whole = np.linalg.norm(updates, axis=1), np.linalg.norm(root)
    trust = np.maximum(0, updates @ root / (lengths * whole))
    return (trust / trust.sum()) @ (updates * (whole / lengths)[:, None])


MALICIOUS = (f"strategy.malicious={LIARS}",)
ORACLES: dict[str, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    "fedmedian": ((), byzfl("Median")),
    "fedtrimmedavg": ((f"strategy.beta={LIARS / CLIENTS + 1e-6}",), byzfl("TrMean", f=LIARS)),
    # ByzFL's Krum counts one neighbour more than Blanchard et al.
    "krum": (MALICIOUS, krum),
    "multikrum": (MALICIOUS, lambda u: krum(u, CLIENTS - LIARS)),
    "bulyan": (MALICIOUS, bulyan),
    "geometric_median": (
        ("strategy.smoothing=0.1", "strategy.steps=1000"), byzfl("GeometricMedian", nu=0.1, T=1000)
    ),
    "centered_clipping": (
        ("strategy.radius=1.0", "strategy.steps=3"), byzfl("CenteredClipping", L=3, tau=1.0)
    ),
    "flame": (("strategy.noise=0",), flame),
    "fltrust": ((), fltrust),
}  # fmt: skip


def test_no_rule_is_without_an_oracle() -> None:
    assert set(ORACLES) == robust()


@pytest.mark.parametrize("name", ORACLES)
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_it_equals_its_oracle(name: str, seed: int) -> None:
    adopt_identity(1)
    told, oracle = ORACLES[name]
    strategy = built(f"strategy={name}", *told)
    # Trained on rows of its own, which has its own test.
    strategy._root_update = lambda number: torch.arange(1.0, 7.0, dtype=torch.float64)
    updates = np.random.default_rng(seed).normal(size=(CLIENTS, 6)) + 1.0
    grid = SimpleNamespace(get_node_ids=lambda: list(range(1, CLIENTS + 1)))
    strategy.configure_train(1, ArrayRecord({"w": Array(START)}), ConfigRecord(), grid)
    arrays, _ = strategy.aggregate_train(1, [reply(START + u, i) for i, u in enumerate(updates)])
    assert arrays["w"].numpy() - START == pytest.approx(oracle(updates), abs=1e-5)


def reply(values: Any, number: int) -> Message:
    content = RecordDict({"arrays": ArrayRecord({"w": Array(values)})})
    content["metrics"] = MetricRecord({"num-examples": 5})
    return Message(content, reply_to=Message(RecordDict(), number + 1, "train"))
