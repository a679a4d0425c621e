"""FedBuff: asynchronous aggregation by a buffer (Nguyen et al. 2022, Algorithm 1).

A round is one flush: the next ``buffer`` clients to finish have trained from models of this round
or of earlier ones, which the server keeps while somebody is at work on them. In simulations, who
that is follows from simulated speeds (`samplers._buffered`), so that they can all train when the
flush is due; on SuperNodes it is who answers first (`asynchronous`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from server_app.samplers._buffered import Buffered, Flush
from server_app.samplers._live import Live
from server_app.strategies._moving import Answers, Moving, Vector, arrays_of, vector_of
from task.options import real


class FedBuff(Moving):
    """Adds up ``(y - x_start) / sqrt(1 + staleness)``, staleness in flushes since the start.

    Attributes
    ----------
    models : dict of str to array, shape (s,)
        The model after so many flushes, as long as somebody is at work on it.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._lr = real(options, "strategy.server_lr", positive=True)
        self.models: dict[str, NDArray[Any]] = {}
        self._flush: Flush | None = None
        self._ages: dict[int, int] = {}
        self._done = 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Give each client the model that was there when it started."""
        self._done = done = server_round - 1
        self.models[str(done)] = vector_of(arrays)
        messages = super().configure_train(server_round, arrays, config, grid)
        if isinstance(self.around.sampler, Live):
            # Who is asked now starts now; who fills the buffer is not known yet.
            return messages
        flush = self._scheduled(server_round)
        starts = [flush.starts[client] for client in sorted(flush.starts)]
        self.due(flush, dict(zip(grid.get_node_ids(), starts, strict=True)))
        told = {0: arrays} | {
            age: arrays_of(self.models[str(done - age)], arrays)
            for age in self._ages.values()
            if age
        }
        messages = list(messages)
        for message in messages:
            age = self._ages[message.metadata.dst_node_id]
            message.content = RecordDict(
                {self.arrayrecord_key: told[age], self.configrecord_key: config}
            )
        return messages

    def due(self, flush: Flush, starts: Mapping[int, int]) -> None:
        """Take note of the flush that ends the round.

        Parameters
        ----------
        flush : Flush
            Who is in it.
        starts : mapping of int to int
            The same by their numbers on the Grid.
        """
        self._flush = flush
        self._ages = {number: self._done - version for number, version in starts.items()}

    def move(self, before: Vector, mean: Vector, answers: Answers) -> Vector:
        """Add the discounted updates to the present model; forget models that nobody needs."""
        ages = np.array([self._ages[node] for node in answers.nodes])
        factors = (1.0 + ages) ** -0.5
        starts = [self.models[str(self._done - age)] for age in ages]
        update = answers.mean(answers.models, factors) - answers.mean(starts, factors)
        flush = self._flush
        assert flush is not None
        self.models = {k: v for k, v in self.models.items() if int(k) in flush.awaited}
        return np.asarray(before + self._lr * update)

    def facts(self) -> dict[str, float]:
        """Record the time, and how stale the updates were."""
        assert self._flush is not None
        ages = list(self._ages.values())
        return {"clock": self._flush.clock, "staleness": sum(ages) / len(ages)}

    def _scheduled(self, number: int) -> Flush:
        roster, sampler = self.around.roster, self.around.sampler
        assert isinstance(sampler, Buffered)
        rows = {client: roster.members[client].train for client in roster.trainable}
        return sampler.flush(rows, number)


def build(options: Mapping[str, Any]) -> Strategy:
    """Build from ``server_lr`` and ``weighting``; the rest is the schedule's."""
    return FedBuff(options)
