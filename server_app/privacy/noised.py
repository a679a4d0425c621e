"""Sums of clipped updates on their way to the global model: checked, and released with noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from server_app.federation.reduction import WEIGHT, NodeTotal, Reduction
from server_app.federation.validation import InvalidAnswerError
from task.aggregation import quantum
from task.arrays import values_of
from task.wire import records

ROUNDING = 1e-5
"""By how much more than the clip an update may be, which the noise counts."""


class NoisedMean(Reduction):
    """The noised mean of one round's clipped updates, added to the global model.

    Parameters
    ----------
    arrays : ArrayRecord
        The global model.
    weight : float
        Of all clients' updates together.
    clip : float
        Norm that none of them exceeds.
    longest : float
        Norm that none of them exceeds, times what it weighs.
    release : callable
        From their sum, how many were not clipped, and how many there are, to the noised mean.
    """

    def __init__(
        self,
        arrays: ArrayRecord,
        weight: float,
        clip: float,
        longest: float,
        release: Callable[[Tensor, int, int], Tensor],
    ) -> None:
        super().__init__(arrays, 1)
        self.unit = quantum(weight, clip)
        self._longest = longest * (1 + ROUNDING)
        self._release = release

    def combine(
        self, asked: Message, valid: Sequence[Message], totals: Sequence[NodeTotal]
    ) -> Message:
        """Return one answer: the model after the noised mean of the updates, of weight one."""
        metrics = [records(reply.content, MetricRecord)[0] for reply in valid]
        unclipped = sum(int(str(record["unclipped"])) for record in metrics)
        update = self._release(self._sum(valid, totals).total, unclipped, len(valid))
        model = self.vector() + update
        told = RecordDict({"arrays": self.arrays_of(model), "metrics": MetricRecord({WEIGHT: 1})})
        return Message(told, reply_to=asked)

    def _check(self, total: NodeTotal, failed: dict[str, str]) -> None:
        super()._check(total, failed)
        if norm_of(total.arrays) > self._longest * len(total.clients):
            raise InvalidAnswerError("its node's sum is longer than the clip allows")


def norm_of(arrays: ArrayRecord) -> float:
    """Return the norm of all values together."""
    values = (values_of(array) for array in arrays.values())
    return math.sqrt(sum(float(np.square(v, dtype=np.float64).sum()) for v in values))
