"""Natural clients: the hospital, state, role, subject or writer that each row belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.base import Pool


def deal(
    pool: Pool[Any], options: Mapping[str, Any], clients: int | None, seed: int
) -> Mapping[str, NDArray[np.int64]]:
    """Group rows by client; of more than `clients`, the first in sorted order are kept.

    Equal to flwr-datasets' `NaturalIdPartitioner`, whose import takes longer than training a
    small federation does.
    """
    if pool.groups is not None:
        return _first(pool.groups, clients)
    if pool.clients is None:
        raise FedproofError(
            "this data has no natural clients: choose another partition, for example "
            "partition=iid federation.clients=10."
        )
    names, codes = np.unique(np.asarray(pool.clients, dtype=object), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    groups = {str(name): order[starts[i] : starts[i + 1]] for i, name in enumerate(names)}
    return _first(groups, clients)


def _first(
    groups: Mapping[str, NDArray[np.int64]], clients: int | None
) -> Mapping[str, NDArray[np.int64]]:
    if clients is None:
        return groups
    if clients > len(groups):
        raise FedproofError(
            f"federation.clients={clients} are more clients than the data has ({len(groups)})."
        )
    return {name: groups[name] for name in islice(groups, clients)}
