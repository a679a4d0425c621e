"""Label skew by a Dirichlet distribution (Yurochkin et al. 2019; Hsu et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from task.base import Pool
from task.options import real, whole
from task.partitions._flower import check, deal_with, own_seed


def deal(
    pool: Pool[Any], options: Mapping[str, Any], clients: int | None, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Deal each label's rows in proportions drawn from Dirichlet(``alpha``)."""
    from flwr_datasets.partitioner import DirichletPartitioner

    count, labels = check(pool, clients, by_label=True)
    partitioner = DirichletPartitioner(
        count,
        "label",
        alpha=real(options, "partition.alpha", positive=True),
        min_partition_size=whole(options, "partition.min_size", 0),
        self_balancing=options["balanced"],
        seed=own_seed(options, seed),
    )
    return deal_with(partitioner, pool, labels, count, seed, shuffle=options["seed"] is None)
