"""Every client's rows are a random sample of all rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from task.base import Pool
from task.partitions._flower import check, deal_with


def deal(
    pool: Pool[Any], options: Mapping[str, Any], clients: int | None, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Deal rows evenly and at random."""
    from flwr_datasets.partitioner import IidPartitioner

    count, labels = check(pool, clients, by_label=False)
    return deal_with(IidPartitioner(count), pool, labels, count, seed)
