"""What clients answered, added up to one answer, for strategies that need no more than the sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from server_app.federation.layout import ARRAYS, Layout, flat
from server_app.federation.validation import InvalidAnswerError, decode
from task.aggregation import WeightedSum, quantum
from task.arrays import values_of
from task.wire import records

WEIGHT = "num-examples"
_LARGEST = float(np.finfo(np.float32).max)


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


class Reduction(Layout):
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
        super().__init__(arrays)
        self._updates = updates
        self._most = _LARGEST * max(weight, 1)
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
        weight = sum(weight_of(reply.content) for reply in valid)
        mean = self._sum(valid, totals).total / weight
        if self._updates:
            mean = self.vector() + mean
        metrics = aggregate_metricrecords([reply.content for reply in valid], WEIGHT)
        metrics[WEIGHT] = weight
        told = RecordDict({ARRAYS: self.arrays_of(mean), "metrics": metrics})
        return Message(told, reply_to=asked)

    def _sum(self, valid: Sequence[Message], totals: Sequence[NodeTotal]) -> WeightedSum:
        total = WeightedSum(self.size, self.unit)
        for node in totals:
            total.merge(values_of(node.arrays["total"]))
        for reply in valid:
            for arrays in records(reply.content, ArrayRecord):
                total.add(flat(arrays.values()), weight_of(reply.content))
        return total

    def _check(self, total: NodeTotal, failed: dict[str, str]) -> None:
        if any(client in failed for client in total.clients):
            raise InvalidAnswerError("its node's sum holds an invalid answer")
        if list(total.arrays) != ["total"]:
            raise InvalidAnswerError("its node's sum has other parameters than the global model")
        values = decode(total.arrays["total"], "total")
        if values.shape != (self.size,) or values.dtype != np.float64:
            raise InvalidAnswerError("its node's sum does not fit the global model")
        if not np.isfinite(values.sum()):
            raise InvalidAnswerError("its node's sum holds NaN or infinity")
        if np.abs(values).max(initial=0.0) > self._most:
            raise InvalidAnswerError("its node's sum is larger than any sum of models")


def weight_of(content: RecordDict) -> int:
    """Return what a valid answer counts."""
    (metrics,) = records(content, MetricRecord)
    return int(metrics[WEIGHT])  # type: ignore[arg-type]
