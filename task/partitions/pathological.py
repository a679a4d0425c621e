"""Each client has rows of a few labels only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.base import Pool
from task.partitions._flower import check, deal_with, own_seed


def deal(
    pool: Pool[Any], options: Mapping[str, Any], clients: int | None, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Give each client ``labels_per_client`` labels; a label's rows are shared evenly."""
    from flwr_datasets.partitioner import PathologicalPartitioner

    count, labels = check(pool, clients, by_label=True)
    wanted, known = options["labels_per_client"], len(np.unique(labels))
    if not 1 <= wanted <= known:
        raise FedproofError(
            f"partition.labels_per_client must lie between 1 and {known}, the labels there are, "
            f"got {wanted}."
        )
    # With fewer label places than labels some labels would go to nobody.
    if count * wanted < known:
        raise FedproofError(
            f"{count} clients with {wanted} labels each cannot hold all {known} labels: raise "
            "federation.clients or partition.labels_per_client."
        )
    partitioner = PathologicalPartitioner(
        count,
        "label",
        num_classes_per_partition=wanted,
        class_assignment_mode=options["assignment"],
        seed=own_seed(options, seed),
    )
    return deal_with(partitioner, pool, labels, count, seed, shuffle=options["seed"] is None)
