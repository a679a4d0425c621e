"""Strategies that aggregate updates by a rule of `task.robust` instead of their mean.

The clients' numbers of rows weigh metrics only: what a client claims to have is a lever.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from conf.schema import Settings
from server_app.federation.layout import Layout
from server_app.strategies._common import ON_CLIENTS
from task.options import whole

ASSUMED = 0.2
"""Share of liars that is assumed where ``malicious`` is null."""


class Robust(FedAvg):
    """Adds what `rule` makes of the updates to the global model.

    Attributes
    ----------
    left_out : list of int
        Positions of the answers that the last aggregate does not hold.
    """

    def __init__(self) -> None:
        super().__init__(**ON_CLIENTS)
        self.left_out: list[int] = []
        self._before: ArrayRecord | None = None
        self._seed = 0

    def inform(self, settings: Settings) -> None:
        """Learn of the run's settings, before it starts.

        Raises
        ------
        FedproofError
            If they do not go with the strategy.
        """
        self._seed = settings.seed

    @abstractmethod
    def rule(self, updates: Tensor, number: int) -> Tensor | None:
        """Return the aggregate of updates, shape (clients, p), or None where they are too few."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember where the round starts."""
        self._before = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate by the rule."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid or self._before is None:
            return None, None
        self.left_out = []
        layout = Layout(self._before)
        update = self.rule(layout.updates(valid), server_round)
        # Nothing that a checkpoint should keep.
        self._before = None
        if update is None:
            return None, None
        contents = [message.content for message in valid]
        metrics = self.train_metrics_aggr_fn(contents, self.weighted_by_key)
        return layout.arrays_of(layout.vector() + update), metrics

    def keep(self, count: int, chosen: Iterable[int]) -> None:
        """Note who of so many is not among the chosen."""
        self.left_out = sorted(set(range(count)) - set(chosen))


def assumed(options: Mapping[str, Any], count: int, group: str = "strategy") -> int:
    """Return how many of `count` clients ``malicious`` says lie; a fifth, rounded down, if null.

    Raises
    ------
    FedproofError
        If it is negative.
    """
    if options["malicious"] is None:
        return int(ASSUMED * count + 1e-9)
    return whole(options, f"{group}.malicious", 0)
