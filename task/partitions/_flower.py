"""What the partitions by flwr-datasets share: its partitioners deal training rows.

Official held-out rows are dealt after them, so that each client is tested on the distribution
that it trains on.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.base import Pool
from task.options import whole
from task.seeding import derive, generator

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner

Indices = NDArray[np.int64]


def check(pool: Pool[Any], clients: int | None, *, by_label: bool) -> tuple[int, Indices]:
    """Return the number of clients and one label per row (zeros where labels do not matter).

    Raises
    ------
    FedproofError
        If the number of clients is not given or too large, or labels are needed but missing.
    """
    count = len(pool.rows) if pool.test is None else int((~pool.test).sum())
    if clients is None:
        raise FedproofError("this partition needs federation.clients=N, the clients to make.")
    if clients > count:
        raise FedproofError(
            f"federation.clients={clients} are more clients than data: there are {count} rows."
        )
    if by_label and pool.labels is None:
        raise FedproofError(
            "this partition deals rows by label, and this task's rows have none: use "
            "partition=iid, quantity_skew or natural."
        )
    labels = pool.labels if by_label else None
    return clients, np.zeros(len(pool.rows), dtype=np.int64) if labels is None else labels


def deal_with(
    partitioner: Partitioner,
    pool: Pool[Any],
    labels: Indices,
    clients: int,
    seed: int,
    *,
    shuffle: bool = True,
) -> dict[str, Indices]:
    """Let a partitioner of flwr-datasets deal the training rows, then deal the held-out ones.

    Rows are shuffled first, because some partitioners cut the data in the order it comes in;
    without `shuffle` the deal is the partitioner's alone.
    """
    rng = generator(seed, "partition")
    train = np.arange(len(pool.rows)) if pool.test is None else np.flatnonzero(~pool.test)
    if shuffle:
        train = rng.permutation(train)
    parts = _deal_train(partitioner, train, labels, clients)
    if pool.test is not None:
        test = rng.permutation(np.flatnonzero(pool.test))
        for part, extra in enumerate(_deal_test(parts, test, labels)):
            parts[part] = np.concatenate([parts[part], extra])
    width = len(str(clients - 1))
    return {f"client-{i:0{width}}": rows for i, rows in enumerate(parts)}


def own_seed(options: Mapping[str, Any], seed: int) -> int:
    """Return the seed of a partitioner's own generator: ``partition.seed``, or a derived one."""
    if options["seed"] is None:
        return derive(seed, "partitioner") % 2**32
    return whole(options, "partition.seed", 0)


def _deal_train(
    partitioner: Partitioner, rows: Indices, labels: Indices, clients: int
) -> list[Indices]:
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    partitioner.dataset = Dataset.from_dict({"row": rows, "label": labels[rows]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parts = [
                np.asarray(partitioner.load_partition(i)["row"], dtype=np.int64)
                for i in range(clients)
            ]
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise FedproofError(
                f"the data cannot be dealt so ({reason.rstrip('.')}): lower federation.clients or "
                "the skew."
            ) from None
    empty = sum(len(part) == 0 for part in parts)
    if empty:
        raise FedproofError(
            f"{empty} of {clients} clients would get no rows: lower federation.clients or the skew."
        )
    return parts


def _deal_test(parts: Sequence[Indices], rows: Indices, labels: Indices) -> list[Indices]:
    """Deal held-out rows: each label's in proportion to the clients' training rows of it."""
    dealt: list[list[Indices]] = [[] for _ in parts]
    for label in np.unique(labels[rows]):
        mine = rows[labels[rows] == label]
        shares = np.array([(labels[part] == label).sum() for part in parts], dtype=np.float64)
        if not shares.any():
            shares[:] = 1.0
        cuts = np.floor(np.cumsum(shares / shares.sum())[:-1] * len(mine) + 0.5).astype(int)
        for client, piece in enumerate(np.split(mine, cuts)):
            dealt[client].append(piece)
    return [np.concatenate(pieces) if pieces else rows[:0] for pieces in dealt]
