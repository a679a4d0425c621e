"""Federated evaluation of which the server sees sums only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from server_app.federation.grid import ClientGrid
from server_app.federation.validation import InvalidAnswerError
from server_app.noised import NoisedSums
from server_app.privacy.account import spend_of
from server_app.secure.collected import Collector, HiddenSum, Purpose, Upcoming, anything
from task.evaluation import plausible, pooled
from task.objectives import Objective
from task.secure.kinds import Kind


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
    noised : NoisedSums or None
        What tells figures from sums, where clients add noise to them.
    """

    def __init__(
        self,
        objective: Objective,
        grid: ClientGrid,
        collector: Collector,
        upcoming: Upcoming,
        noised: NoisedSums | None = None,
    ) -> None:
        self._objective = objective
        self._grid = grid
        self._collector = collector
        self._upcoming = upcoming
        self._noised = noised
        self.rows: list[dict[str, Any]] = []

    def run(
        self, strategy: Strategy, number: int, arrays: ArrayRecord, timeout: float
    ) -> dict[str, Any]:
        """Ask the cohort; return the round's figures, without ``held_out`` if there is no sum."""
        config = ConfigRecord({"server-round": number})
        messages = list(strategy.configure_evaluate(number, arrays, config, self._grid))
        purpose = Purpose(Kind.EVALUATE.value, number, tuple(self._grid.cohort))
        check = anything if self._noised is None else _costs
        collected = self._collector.collect(purpose, messages, timeout, self._upcoming, check)
        line: dict[str, Any] = {
            "weighted": {},
            "mean": {},
            "evaluated": len(collected.answers),
            "evaluation_failed": collected.failed,
        }
        if self._noised is not None:
            line |= self._noised.spent(collected.answers.items())
        if not collected.sums:
            return {**line, "evaluation_abandoned": collected.abandoned}
        (total,) = collected.sums
        figures = self._figures(total, collected.answers)
        if figures is None:
            why = "the sum is that of no held-out rows: somebody sent noise"
            return {**line, "evaluation_abandoned": [*collected.abandoned, why]}
        return {**line, **figures}

    def _figures(
        self, total: HiddenSum, answers: Mapping[str, RecordDict]
    ) -> dict[str, Any] | None:
        """Return a line's figures from a sum; None if no held-out rows have such a sum."""
        if self._noised is None:
            if not plausible(self._objective, total.figures, None):
                return None
            return {"held_out": pooled(self._objective, total.figures)}
        variance = sum(self._noised.variance_of(answers[client]) for client in total.clients)
        try:
            self._noised.add(dict(total.figures), len(total.clients), math.inf, variance)
        except InvalidAnswerError:
            return None
        return self._noised.line()


def _costs(content: RecordDict) -> None:
    """Refuse an answer that does not say what it cost."""
    spend_of(content)
