"""Any strategy once per cluster: clients answer with the model that they chose among several."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from server_app.federation.reduction import WEIGHT, Reduction, weight_of
from task.arrays import record_of
from task.clusters import apart, joined


class Clustered(Strategy):
    """Gives each of several models the answers of the clients that trained it.

    A model that nobody chose, or too few for its strategy, stays as it is.

    Parameters
    ----------
    strategies : sequence of Strategy
        One per model, built alike.
    sum_suffices : bool
        Whether they need no more than the weighted mean of the models.
    """

    def __init__(self, strategies: Sequence[Strategy], *, sum_suffices: bool) -> None:
        self.strategies = list(strategies)
        self.sum_suffices = sum_suffices

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send every client all models."""
        self._before = {n: record_of(model) for n, model in apart(arrays).items()}
        told = [
            list(
                inner.configure_train(
                    server_round, record_of(self._before[n]), ConfigRecord(dict(config)), grid
                )
            )
            for n, inner in enumerate(self.strategies)
        ]
        # What they tell besides the model is the same, for they are built alike.
        for message in told[0]:
            for key in [k for k, r in message.content.items() if isinstance(r, ArrayRecord)]:
                message.content[key] = arrays
        self._asked = told[0][0]
        return told[0]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Let each model's strategy aggregate the answers that are about it."""
        replies = list(replies)
        metrics = aggregate_metricrecords([reply.content for reply in replies], WEIGHT)
        groups: dict[int, list[Message]] = {n: [] for n in self._before}
        for reply in replies:
            groups[_parted(reply)].append(reply)
        weight = sum(weight_of(reply.content) for reply in replies)
        models = []
        for (number, group), inner in zip(groups.items(), self.strategies, strict=True):
            before, updated = self._before[number], None
            told = group
            if group and self.sum_suffices:
                told = [Reduction(before, weight).combine(self._asked, group, [])]
            if told:
                updated, _ = inner.aggregate_train(server_round, told)
            models.append(before if updated is None else updated)
        return record_of(joined(models)), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send every client all models."""
        return self.strategies[0].configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Aggregate as a strategy does."""
        return self.strategies[0].aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Log the strategy's settings."""
        self.strategies[0].summary()


def _parted(reply: Message) -> int:
    """Return which model a reply is about, and take the number off its arrays' names."""
    for key in [k for k, r in reply.content.items() if isinstance(r, ArrayRecord)]:
        record = reply.content[key]
        assert isinstance(record, ArrayRecord)
        ((number, model),) = apart(record).items()
        reply.content[key] = record_of(model)
    return number
