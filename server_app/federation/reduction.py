"""What clients answered, added up to one answer, for strategies that need no more than the sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from torch import Tensor

from server_app.federation.validation import InvalidAnswerError, decode
from task.aggregation import WeightedSum, quantum
from task.arrays import array_of, record_of, values_of
from task.wire import records

WEIGHT = "num-examples"


@dataclass(frozen=True)
class NodeTotal:
    """The weighted sum of the models of some clients, added up on their node.

    Attributes
    ----------
    clients : frozenset of str
        Whose.
    arrays : ArrayRecord
        The sum.
    unsent : mapping of str to int
        Bytes that clients would have sent, where the node compressed their updates.
    """

    clients: frozenset[str]
    arrays: ArrayRecord
    unsent: Mapping[str, int] = field(default_factory=dict)


class Reduction:
    """The weighted mean of one round's models.

    Parameters
    ----------
    arrays : ArrayRecord
        The global model.
    weight : int
        Training rows of the whole cohort.
    updates : bool
        Whether clients answer what they changed instead of what came out.

    Attributes
    ----------
    unit : float
        What all sums are rounded to (`task.aggregation`).
    """

    def __init__(self, arrays: ArrayRecord, weight: int, *, updates: bool = False) -> None:
        self._updates = updates
        self._like = {key: values_of(array) for key, array in arrays.items()}
        self._size = sum(value.size for value in self._like.values())
        largest = max((float(np.abs(v).max()) for v in self._like.values() if v.size), default=0.0)
        self.unit = quantum(weight, largest)

    def usable(self, totals: Sequence[NodeTotal], failed: dict[str, str]) -> list[NodeTotal]:
        """Leave out totals that are malformed or hold a client that failed, with all their clients.

        Parameters
        ----------
        totals : sequence of NodeTotal
            What nodes added up.
        failed : dict
            Why clients failed; those left out here are added.
        """
        usable = []
        for total in totals:
            try:
                self._check(total, failed)
                usable.append(total)
            except InvalidAnswerError as error:
                failed |= {client: str(error) for client in total.clients if client not in failed}
        return usable

    def combine(
        self, asked: Message, valid: Sequence[Message], totals: Sequence[NodeTotal]
    ) -> Message:
        """Return one answer: the weighted mean of all models and metrics, and the whole weight."""
        weight = sum(_weight(reply.content) for reply in valid)
        mean = self._sum(valid, totals).total / weight
        if self._updates:
            mean = self.vector() + mean
        metrics = aggregate_metricrecords([reply.content for reply in valid], WEIGHT)
        metrics[WEIGHT] = weight
        told = RecordDict({"arrays": self.arrays_of(mean), "metrics": metrics})
        return Message(told, reply_to=asked)

    def _sum(self, valid: Sequence[Message], totals: Sequence[NodeTotal]) -> WeightedSum:
        total = WeightedSum(self._size, self.unit)
        for node in totals:
            total.merge(values_of(node.arrays["total"]))
        for reply in valid:
            for arrays in records(reply.content, ArrayRecord):
                total.add(_flat(arrays.values()), _weight(reply.content))
        return total

    def vector(self) -> Tensor:
        """Return the global model, shape (p,)."""
        return torch.from_numpy(np.concatenate([v.reshape(-1) for v in self._like.values()]))

    def _check(self, total: NodeTotal, failed: dict[str, str]) -> None:
        if any(client in failed for client in total.clients):
            raise InvalidAnswerError("its node's sum holds an invalid answer")
        if list(total.arrays) != ["total"]:
            raise InvalidAnswerError("its node's sum has other parameters than the global model")
        values = decode(total.arrays["total"], "total")
        if values.shape != (self._size,) or values.dtype != np.float64:
            raise InvalidAnswerError("its node's sum does not fit the global model")
        if not np.isfinite(values.sum()):
            raise InvalidAnswerError("its node's sum holds NaN or infinity")

    def arrays_of(self, mean: Tensor) -> ArrayRecord:
        """Return a vector of shape (p,) in the shapes of the global model."""
        parts = torch.split(mean, [value.size for value in self._like.values()])
        return record_of(
            {
                key: array_of(part.numpy().astype(value.dtype).reshape(value.shape))
                for (key, value), part in zip(self._like.items(), parts, strict=True)
            }
        )


def _flat(arrays: Iterable[Array]) -> Tensor:
    parts = [values_of(array).reshape(-1) for array in arrays]
    return torch.from_numpy(np.concatenate(parts)) if parts else torch.empty(0)


def _weight(content: RecordDict) -> int:
    (metrics,) = records(content, MetricRecord)
    return int(metrics[WEIGHT])  # type: ignore[arg-type]
