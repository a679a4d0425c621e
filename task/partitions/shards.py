"""Label skew by shards of label-sorted rows (McMahan et al. 2017, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from task.base import Pool
from task.options import whole
from task.partitions._flower import check, deal_with, own_seed


def deal(
    pool: Pool[Any], options: Mapping[str, Any], clients: int | None, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Sort rows by label, cut them into shards, and give each client ``per_client`` of them."""
    from flwr_datasets.partitioner import ShardPartitioner

    count, labels = check(pool, clients, by_label=True)
    partitioner = ShardPartitioner(
        count,
        "label",
        num_shards_per_partition=whole(options, "partition.per_client", 1),
        keep_incomplete_shard=True,
        seed=own_seed(options, seed),
    )
    return deal_with(partitioner, pool, labels, count, seed, shuffle=options["seed"] is None)
