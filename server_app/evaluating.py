"""Federated evaluation: every client's own metrics, and those of all held-out rows together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import Strategy

from conf.errors import FedproofError
from server_app.federation.grid import ClientGrid
from server_app.federation.reduction import WEIGHT
from server_app.federation.roster import Roster
from server_app.federation.validation import (
    InvalidAnswerError,
    check_metrics,
    check_statistics,
    reasons,
    same_metrics,
    sift,
)
from server_app.noised import NoisedSums
from task.evaluation import add, plausible, pooled
from task.metric_names import CLUSTER, GLOBAL
from task.objectives import LOWER_IS_BETTER, Objective, Statistics
from task.refusals import Refusal
from task.worth.fairness import worst_tenth

Rows = list[dict[str, Any]]
Shape = tuple[tuple[str, int], ...]
"""Names of sums, and how many numbers each has."""
_REFUSED = {Refusal.unanswered, Refusal.evaluations}
"""Why silos may train without being evaluated."""


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

        Without ``held_out`` where silos' policies do not let them answer.

        Raises
        ------
        FedproofError
            If no client could evaluate.
        """
        config = ConfigRecord({"server-round": number})
        messages = strategy.configure_evaluate(number, arrays, config, self._grid)
        replies = self._grid.send_and_receive(messages, timeout=timeout)
        shape = usual_shape(reply.content for reply in replies if reply.has_content())
        valid, failed = sift(replies, self._grid.name, self._taker(number, shape))
        if not valid and not _REFUSED.isdisjoint(failed.values()):
            return unanswered(failed)
        if not valid:
            raise FedproofError(f"round {number}: no client could evaluate ({reasons(failed)}).")
        weighted = strategy.aggregate_evaluate(number, same_metrics(valid))
        return {
            "held_out": pooled(self._objective, self._sums),
            "weighted": dict(weighted or {}),
            "mean": mean_of(self.rows),
            "worst_decile": worst_decile(self.rows),
            "evaluated": len(valid),
            "evaluation_failed": failed,
        }

    def _taker(self, number: int, shape: Shape) -> Callable[[str, Message], None]:
        def take(client: str, reply: Message) -> None:
            metrics = check_metrics(reply.content, self._roster.members[client].test)
            rows = int(str(metrics[WEIGHT]))
            statistics = fitting_statistics(reply.content, self._objective, shape, rows)
            self._sums = add(self._sums, statistics)
            self.rows.append({"round": number, "client": client, **metrics})
            # Whose model a client took is nothing to average.
            if CLUSTER in metrics:
                del metrics[CLUSTER]

        return take


class NoisedEvaluation:
    """The evaluation of one model from sums that clients noised.

    No client's own metrics are worked out: noise that all together bear hides a single one's.

    Parameters
    ----------
    sums : NoisedSums
        Where they are added up.
    grid : ClientGrid
        With the cohort to ask.
    roster : Roster
        How many held-out rows each client joined with.
    """

    def __init__(self, sums: NoisedSums, grid: ClientGrid, roster: Roster) -> None:
        self._sums = sums
        self._grid = grid
        self._roster = roster
        self.rows: Rows = []

    def run(
        self, strategy: Strategy, number: int, arrays: ArrayRecord, timeout: float
    ) -> dict[str, Any]:
        """Ask the cohort; return the round's figures, without ``held_out`` if nobody answered."""
        config = ConfigRecord({"server-round": number})
        messages = strategy.configure_evaluate(number, arrays, config, self._grid)
        replies = self._grid.send_and_receive(messages, timeout=timeout)
        valid, failed = sift(replies, self._grid.name, self._take)
        if not valid:
            return unanswered(failed)
        spent = self._sums.spent((self._grid.name(reply), reply.content) for reply in valid)
        facts = {"evaluated": len(valid), "evaluation_failed": failed}
        return {"weighted": {}, "mean": {}, **facts, **self._sums.line(), **spent}

    def _take(self, client: str, reply: Message) -> None:
        rows = int(str(check_metrics(reply.content, self._roster.members[client].test)[WEIGHT]))
        variance = self._sums.variance_of(reply.content)
        # What clients say of their rows before is noised, too.
        self._sums.add(check_statistics(reply.content), 1, 2 * rows, variance)


def unanswered(failed: dict[str, str]) -> dict[str, Any]:
    """Return the line of an evaluation that no client answered."""
    why = f"no client answered ({reasons(failed)})"
    facts = {"evaluated": 0, "evaluation_failed": failed, "evaluation_abandoned": [why]}
    return {"weighted": {}, "mean": {}, **facts}


def shape_of(statistics: Statistics) -> Shape:
    """Return names and lengths of sums."""
    return tuple(sorted((key, len(values)) for key, values in statistics.items()))


def fitting_statistics(
    content: RecordDict, objective: Objective, shape: Shape, rows: int
) -> Statistics:
    """Return the sums of an evaluation of so many rows.

    Raises
    ------
    InvalidAnswerError
        If they have another shape than most clients' sums, or cannot be those of such rows.
    """
    statistics = check_statistics(content)
    if shape_of(statistics) != shape or not plausible(objective, statistics, rows):
        raise InvalidAnswerError("its statistics do not fit the task")
    return statistics


def usual_shape(answers: Iterable[RecordDict]) -> Shape:
    """Return the shape that most answers have: no single one decides what the others must be."""
    shapes: Counter[Shape] = Counter()
    for answer in answers:
        with suppress(InvalidAnswerError):
            shapes[shape_of(check_statistics(answer))] += 1
    return max(shapes, key=lambda shape: (shapes[shape], shape), default=())


def mean_of(rows: Rows) -> dict[str, float]:
    """Return each metric's unweighted mean over the clients for which it is defined."""
    return {key: float(np.mean(values)) for key, values in _columns(rows).items()}


def worst_decile(rows: Rows) -> dict[str, float]:
    """Return each metric's mean over the worst tenth of the clients."""
    return {
        key: worst_tenth(
            np.array(values), lower_is_better=key.removeprefix(GLOBAL) in LOWER_IS_BETTER
        )
        for key, values in _columns(rows).items()
    }


def _columns(rows: Rows) -> dict[str, list[float]]:
    """Return the values of each metric."""
    others = {"round", "client", "num-examples", CLUSTER}
    keys = sorted({key for row in rows for key in row} - others)
    return {key: [row[key] for row in rows if key in row] for key in keys}
