"""Every partition deals every row once, and each as its paper says."""

import numpy as np
import pytest
import torch
from flwr_datasets.partitioner import (
    DirichletPartitioner,
    NaturalIdPartitioner,
    PathologicalPartitioner,
    ShardPartitioner,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import FedproofError
from conf.schema import PartitionConfig
from task.base import Examples, Pool
from task.partition import partition

OPTIONS = {
    "iid": {},
    "dirichlet": {"alpha": 0.5, "min_size": 1, "balanced": False, "seed": None},
    "shards": {"per_client": 2, "seed": None},
    "pathological": {
        "labels_per_client": 2,
        "assignment": "first-deterministic",
        "seed": None,
    },
    "quantity_skew": {"growth": "linear"},
}


def pool(n=300, classes=5, test=0, clients=None, seed=0):
    labels = np.random.default_rng(seed).integers(0, classes, n + test)
    rows = Examples(torch.zeros(n + test, 1), torch.from_numpy(labels))
    held_out = np.arange(n + test) >= n if test else None
    return Pool(rows, labels, clients, held_out)


def deal(name, data, clients, /, seed_of_all=1, **options):
    config = PartitionConfig(name, options=OPTIONS[name] | options)
    return partition(data, config, clients, seed_of_all)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("test", [0, 100])
def test_every_row_is_dealt_once(name, test):
    data = pool(test=test)
    parts = deal(name, data, 6)
    assert list(parts) == [f"client-{i}" for i in range(6)]
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(300 + test))
    for rows in parts.values():
        assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize("name", OPTIONS)
def test_the_seed_fixes_the_deal(name):
    first, again, other = (deal(name, pool(), 6, seed) for seed in (1, 1, 2))
    assert all((first[client] == again[client]).all() for client in first)
    assert any(set(first[client]) != set(other[client]) for client in first)


@pytest.mark.parametrize("name", ["dirichlet", "pathological", "shards"])
def test_held_out_rows_follow_the_training_rows(name):
    data = pool(n=1000, test=500)
    for rows in deal(name, data, 5).values():
        shares = [
            np.bincount(data.labels[part], minlength=5) / max(len(part), 1)
            for part in (rows[rows < 1000], rows[rows >= 1000])
        ]
        assert np.abs(shares[0] - shares[1]).max() < 0.06


def test_dirichlet_alpha_is_the_skew():
    def skew(alpha):
        parts = deal("dirichlet", pool(n=3000), 5, alpha=alpha).values()
        shares = [np.bincount(pool(n=3000).labels[rows], minlength=5) / len(rows) for rows in parts]
        return float(np.std(shares))

    assert skew(0.1) > 2 * skew(1.0) > 4 * skew(100.0)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("dirichlet", lambda: DirichletPartitioner(6, "label", 0.5, 1, False, seed=42)),
        ("shards", lambda: ShardPartitioner(6, "label", 2, keep_incomplete_shard=True, seed=42)),
        (
            "pathological",
            lambda: PathologicalPartitioner(6, "label", 2, "first-deterministic", seed=42),
        ),
    ],
)
@pytest.mark.parametrize("test", [0, 100])
def test_with_its_own_seed_the_deal_is_flwr_datasets(name, theirs, test):
    from datasets import Dataset

    data, partitioner = pool(test=test), theirs()
    partitioner.dataset = Dataset.from_dict({"label": data.labels[:300], "row": range(300)})
    for of_all in (1, 2):
        parts = deal(name, data, 6, of_all, seed=42)
        for number, rows in enumerate(parts.values()):
            expected = sorted(partitioner.load_partition(number)["row"])
            assert rows[rows < 300].tolist() == expected


def test_pathological_clients_have_k_labels():
    data = pool()
    for rows in deal("pathological", data, 5, labels_per_client=2).values():
        assert len(np.unique(data.labels[rows])) == 2


def test_shards_limit_the_labels():
    data = pool(n=1000)
    for rows in deal("shards", data, 10).values():
        assert len(np.unique(data.labels[rows])) <= 4
        assert len(rows) == 100


def test_quantity_skew_grows():
    sizes = sorted(len(rows) for rows in deal("quantity_skew", pool(n=1000), 4).values())
    assert sizes == [100, 200, 300, 400]


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=60))
@settings(max_examples=25, deadline=None)
def test_natural_is_flwr_datasets_partitioner(names):
    from datasets import Dataset

    rows = Examples(torch.zeros(len(names), 1), torch.zeros(len(names)))
    mine = partition(Pool(rows, None, names), PartitionConfig("natural"), None, 0)
    theirs = NaturalIdPartitioner("client")
    theirs.dataset = Dataset.from_dict({"client": names, "row": range(len(names))})
    expected = {
        theirs.partition_id_to_natural_id[i]: theirs.load_partition(i)["row"]
        for i in range(theirs.num_partitions)
    }
    assert {client: list(rows) for client, rows in mine.items()} == {
        client: list(rows) for client, rows in expected.items()
    }


def test_natural_keeps_the_first_clients():
    names = ["b", "a", "c", "a"]
    rows = Examples(torch.zeros(4, 1), torch.zeros(4))
    parts = partition(Pool(rows, None, names), PartitionConfig("natural"), 2, 0)
    assert {client: rows.tolist() for client, rows in parts.items()} == {"a": [1, 3], "b": [0]}


UNLABELLED = Pool(Examples(torch.zeros(9, 1), torch.zeros(9)))


@pytest.mark.parametrize(
    ("name", "data", "clients", "options", "message"),
    [
        ("iid", pool(), None, {}, "needs federation.clients=N"),
        ("iid", pool(n=5), 6, {}, "more clients than data: there are 5 rows"),
        ("shards", UNLABELLED, 3, {}, "deals rows by label"),
        ("dirichlet", pool(), 3, {"alpha": 0.0}, "partition.alpha must be positive"),
        ("dirichlet", pool(n=20), 10, {"min_size": 10}, "cannot be dealt so|no rows"),
        ("shards", pool(), 3, {"seed": -1}, "partition.seed must be at least 0"),
        ("shards", pool(), 3, {"per_client": 0}, "partition.per_client must be at least 1"),
        ("pathological", pool(), 3, {"labels_per_client": 6}, "must lie between 1 and 5"),
        ("pathological", pool(), 2, {"labels_per_client": 2}, "cannot hold all 5 labels"),
        ("quantity_skew", pool(), 3, {"growth": "wild"}, "must be one of linear, square"),
        ("quantity_skew", pool(n=20), 12, {"growth": "exponential"}, "cannot be dealt so"),
    ],
)
def test_what_cannot_be_dealt_is_refused(name, data, clients, options, message):
    with pytest.raises(FedproofError, match=message) as caught:
        deal(name, data, clients, **options)
    assert "\n" not in str(caught.value)


def test_natural_refusals():
    with pytest.raises(FedproofError, match="no natural clients: choose another partition"):
        partition(pool(), PartitionConfig("natural"), None, 0)
    with pytest.raises(FedproofError, match=r"more clients than the data has \(1\)"):
        partition(pool(n=2, clients=["a", "a"]), PartitionConfig("natural"), 2, 0)
