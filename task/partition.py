"""Deal the rows of a pool to clients, as the partition that the settings name does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from conf.groups import PartitionConfig
from task.base import Pool
from task.registry import find

Indices = NDArray[np.int64]


def partition(
    pool: Pool[Any], config: PartitionConfig, clients: int | None, seed: int
) -> Mapping[str, Indices]:
    """Deal all rows, official held-out rows included.

    Parameters
    ----------
    pool : Pool
        Rows with whatever labels, natural clients and held-out flags they have.
    config : PartitionConfig
        A module of `task.partitions` and its options.
    clients : int or None
        How many clients to make; with natural clients, how many to keep.
    seed : int
        Fixes the deal, independently of anything else.

    Returns
    -------
    mapping
        Client id to ascending row positions, sorted by client id.

    Raises
    ------
    FedproofError
        If the data cannot be dealt so.
    """
    deal = find("task.partitions", config.name).deal
    parts = cast(Mapping[str, Indices], deal(pool, config.options, clients, seed))
    if parts is pool.groups:
        return parts
    return {client: np.sort(parts[client]) for client in sorted(parts)}
