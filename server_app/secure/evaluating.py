"""Federated evaluation of which the server sees sums only."""

from __future__ import annotations

from typing import Any

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import Strategy

from server_app.federation.grid import ClientGrid
from server_app.secure.collected import Collector, Purpose, Upcoming, anything
from task.evaluation import plausible, pooled
from task.objectives import Objective


class SecureEvaluation:
    """The evaluation of one model; no client's own metrics are known.

    Parameters
    ----------
    objective : Objective
        Turns the clients' sums into metrics.
    grid : ClientGrid
        With the cohort to ask.
    collector : Collector
        Brings the sums about.
    upcoming : callable
        Tells what will be summed next.
    """

    def __init__(
        self, objective: Objective, grid: ClientGrid, collector: Collector, upcoming: Upcoming
    ) -> None:
        self._objective = objective
        self._grid = grid
        self._collector = collector
        self._upcoming = upcoming
        self.rows: list[dict[str, Any]] = []

    def run(
        self, strategy: Strategy, number: int, arrays: ArrayRecord, timeout: float
    ) -> dict[str, Any]:
        """Ask the cohort; return the round's figures, without ``held_out`` if there is no sum."""
        config = ConfigRecord({"server-round": number})
        messages = list(strategy.configure_evaluate(number, arrays, config, self._grid))
        purpose = Purpose("evaluate", number, tuple(self._grid.cohort))
        collected = self._collector.collect(purpose, messages, timeout, self._upcoming, anything)
        line: dict[str, Any] = {
            "weighted": {},
            "mean": {},
            "evaluated": len(collected.answers),
            "evaluation_failed": collected.failed,
        }
        if not collected.sums:
            return {**line, "evaluation_abandoned": collected.abandoned}
        (total,) = collected.sums
        if not plausible(self._objective, total.figures, None):
            why = "the sum is that of no held-out rows: somebody sent noise"
            return {**line, "evaluation_abandoned": [*collected.abandoned, why]}
        return {**line, "held_out": pooled(self._objective, total.figures)}
