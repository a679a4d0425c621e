"""Best model and early stopping, by a metric on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from flwr.app import ArrayRecord

from conf.errors import FedproofError
from conf.schema import Select, Settings
from task.objectives import LOWER_IS_BETTER


class Selection:
    """Follows one metric over the rounds.

    Attributes
    ----------
    best : ArrayRecord or None
        The model of the best evaluation so far, kept if ``select=best``.
    """

    def __init__(self, settings: Settings) -> None:
        self.metric = settings.stop.metric or settings.task.metric
        self._patience = settings.stop.patience
        self._keep = settings.select is Select.best
        self._sign = -1.0 if self.metric in LOWER_IS_BETTER else 1.0
        self._score = -math.inf
        self._stale = 0
        self._round = 0
        self._last: tuple[int, Mapping[str, float]] = (0, {})
        self._best_metrics: Mapping[str, float] = {}
        self.best: ArrayRecord | None = None

    def update(self, number: int, metrics: Mapping[str, float], arrays: ArrayRecord) -> None:
        """Take note of an evaluation.

        Raises
        ------
        FedproofError
            If the metric is none that the task reports.
        """
        if self.metric not in metrics:
            raise FedproofError(
                f"there is no metric '{self.metric}' here: choose task.metric or stop.metric "
                f"among {', '.join(sorted(metrics))}."
            )
        self._last = (number, metrics)
        score = self._sign * metrics[self.metric]
        if score > self._score:
            self._score, self._round, self._stale = score, number, 0
            self._best_metrics = metrics
            self.best = arrays if self._keep else None
        else:
            self._stale += 1

    @property
    def stopped(self) -> bool:
        """Whether the metric has not improved for ``stop.patience`` evaluations."""
        return 0 < self._patience <= self._stale

    def choose(self, last: ArrayRecord) -> ArrayRecord:
        """Return the model that the run ends with: the last one, or the best."""
        return self.best if self._keep and self.best is not None else last

    def summary(self) -> dict[str, Any]:
        """Return the held-out metrics of the chosen model, and the best round."""
        chosen = (self._round, self._best_metrics) if self._keep else self._last
        return {
            "metric": self.metric,
            "evaluated_round": chosen[0],
            "held_out": dict(chosen[1]),
            "best_round": self._round,
            "best": dict(self._best_metrics),
            "stopped_early": self.stopped,
        }

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint must hold, besides the best model's arrays."""
        return {
            "score": self._score if math.isfinite(self._score) else None,
            "stale": self._stale,
            "round": self._round,
            "last": [self._last[0], dict(self._last[1])],
            "best_metrics": dict(self._best_metrics),
        }

    def restore(self, facts: Mapping[str, Any], best: ArrayRecord | None) -> None:
        """Take up where `facts` left."""
        self._score = -math.inf if facts["score"] is None else facts["score"]
        self._stale, self._round = facts["stale"], facts["round"]
        self._last = (facts["last"][0], facts["last"][1])
        self._best_metrics = facts["best_metrics"]
        self.best = best if self._keep else None
