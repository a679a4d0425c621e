"""Clients differ in how much data they have, not in kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from task.base import Pool
from task.options import choice
from task.partitions._flower import check, deal_with


def deal(
    pool: Pool[Any], options: Mapping[str, Any], clients: int | None, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Give client i rows in proportion to ``growth``: i, i squared or exp(i)."""
    from flwr_datasets import partitioner as partitioners

    kinds = {
        "linear": partitioners.LinearPartitioner,
        "square": partitioners.SquarePartitioner,
        "exponential": partitioners.ExponentialPartitioner,
    }
    growth = choice(options, "partition.growth", kinds)
    count, labels = check(pool, clients, by_label=False)
    return deal_with(kinds[growth](count), pool, labels, count, seed)
