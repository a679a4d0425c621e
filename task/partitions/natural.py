"""Natural clients: the hospital, state, role, subject or writer that each row belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.base import Pool


def deal(
    pool: Pool[Any], options: Mapping[str, Any], clients: int | None, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Group rows by client; of more than `clients`, the first in sorted order are kept.

    Equal to flwr-datasets' `NaturalIdPartitioner`, whose import takes longer than training a
    small federation does.
    """
    if pool.clients is None:
        raise FedproofError(
            "this data has no natural clients: choose another partition, for example "
            "partition=iid federation.clients=10."
        )
    names, codes = np.unique(np.asarray(pool.clients, dtype=object), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    kept = len(names) if clients is None else clients
    if kept > len(names):
        raise FedproofError(
            f"federation.clients={clients} are more clients than the data has ({len(names)})."
        )
    return {str(names[i]): order[starts[i] : starts[i + 1]] for i in range(kept)}
