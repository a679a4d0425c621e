"""Federated evaluation: every client's own metrics, and those of all held-out rows together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp.strategy import Strategy

from conf.errors import FedproofError
from server_app.federation.grid import ClientGrid
from server_app.federation.roster import Roster
from server_app.federation.validation import (
    InvalidAnswerError,
    check_metrics,
    check_statistics,
    reasons,
    same_metrics,
    sift,
)
from task.evaluation import add
from task.objectives import Objective, Statistics

Rows = list[dict[str, Any]]


class Evaluation:
    """The evaluation of one model.

    Parameters
    ----------
    objective : Objective
        Turns the clients' sums into metrics.
    grid : ClientGrid
        With the cohort to ask.
    roster : Roster
        How many held-out rows each client joined with.
    """

    def __init__(self, objective: Objective, grid: ClientGrid, roster: Roster) -> None:
        self._objective = objective
        self._grid = grid
        self._roster = roster
        self._sums: Statistics = {}
        self.rows: Rows = []

    def run(
        self, strategy: Strategy, number: int, arrays: ArrayRecord, timeout: float
    ) -> dict[str, Any]:
        """Ask the cohort; return the round's figures, and leave the clients' in `rows`.

        Raises
        ------
        FedproofError
            If no client could evaluate.
        """
        config = ConfigRecord({"server-round": number})
        messages = strategy.configure_evaluate(number, arrays, config, self._grid)
        replies = self._grid.send_and_receive(messages, timeout=timeout)
        valid, failed = sift(replies, self._grid.name, self._taker(number))
        if not valid:
            raise FedproofError(f"round {number}: no client could evaluate ({reasons(failed)}).")
        weighted = strategy.aggregate_evaluate(number, same_metrics(valid))
        return {
            "held_out": self._objective.pooled(self._sums),
            "weighted": dict(weighted or {}),
            "mean": _mean(self.rows),
            "evaluated": len(valid),
            "evaluation_failed": failed,
        }

    def _taker(self, number: int) -> Callable[[str, Message], None]:
        def take(client: str, reply: Message) -> None:
            metrics = check_metrics(reply.content, self._roster.members[client].test)
            statistics = check_statistics(reply.content)
            try:
                self._objective.pooled(statistics)
                self._sums = add(self._sums, statistics)
            except (KeyError, IndexError, ArithmeticError, ValueError, RuntimeError):
                raise InvalidAnswerError("its statistics do not fit the task") from None
            self.rows.append({"round": number, "client": client, **metrics})

        return take


def _mean(rows: Rows) -> Mapping[str, float]:
    """Unweighted mean over clients of each metric, over those for which it is defined."""
    keys = sorted({key for row in rows for key in row} - {"round", "client", "num-examples"})
    return {key: float(np.mean([row[key] for row in rows if key in row])) for key in keys}
