"""Held-out figures from sums that clients added noise to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from flwr.app import RecordDict

from server_app.federation.validation import InvalidAnswerError
from server_app.privacy.account import Account, spend_of
from task.evaluation import add, bounded_of
from task.objectives import Objective, Statistics

_BEYOND = 10.0
"""Standard deviations of noise that no sum goes beyond."""


class NoisedSums:
    """Adds up noised sums, and tells what they say.

    Parameters
    ----------
    objective : Objective
        Whose sums they are.
    metric : str
        Headline metric of the run.
    account : Account
        What the clients' privacy costs.
    """

    def __init__(self, objective: Objective, metric: str, account: Account) -> None:
        self._bounded = bounded_of(objective)
        self._sigma = account.evaluation_sigma
        self._per_client = account.unit == "client"
        self._metric = metric
        self._account = account
        self._variance = 0.0
        self._sums: Statistics = {}

    def variance_of(self, content: RecordDict) -> float:
        """Return the variance of a client's noise in a block of weight 1, as it says.

        Raises
        ------
        InvalidAnswerError
            If it does not say what its evaluation cost, or another noise than the run's: one that
            claims more would make everybody's figures worthless.
        """
        sigma = spend_of(content).sigma
        if self._sigma is not None and not math.isclose(sigma, self._sigma, rel_tol=1e-6):
            raise InvalidAnswerError("the noise of its evaluation is not the run's")
        return (sigma * self._bounded.sensitivity) ** 2

    def add(self, sums: Statistics, clients: int, rows: float, variance: float) -> None:
        """Add noised sums of one or several clients.

        Parameters
        ----------
        sums : dict of str to list of float
            By block.
        clients : int
            How many clients' they are; at client level each adds no more than one row would.
        rows : float
            The most rows that are behind them.
        variance : float
            Of the noise in a block of weight 1.

        Raises
        ------
        InvalidAnswerError
            If no rows and no such noise make these sums.
        """
        blocks, deviation = self._bounded.blocks, math.sqrt(variance)
        if {name: len(values) for name, values in sums.items()} != {
            name: block.length for name, block in blocks.items()
        }:
            raise InvalidAnswerError("its statistics do not fit the task")
        most = clients if self._per_client else rows
        for name, values in sums.items():
            noise = _BEYOND * deviation / blocks[name].weight
            # Written so that NaN is refused.
            if not all(-noise <= value <= most + noise for value in values):
                raise InvalidAnswerError("its statistics are beyond its rows and its noise")
        self._sums, self._variance = add(self._sums, sums), self._variance + variance

    def spent(self, answers: Iterable[tuple[str, RecordDict]]) -> dict[str, Any]:
        """Count what these evaluations cost; return a line's part on privacy."""
        return self._account.evaluated(answers)

    def line(self) -> dict[str, Any]:
        """Return a line's figures, without ``held_out`` where noise hides the headline metric."""
        found = self._bounded.read(self._sums, math.sqrt(self._variance))
        if self._metric not in found.metrics:
            why = (
                f"the noise is larger than what it is to tell of '{self._metric}', or the task has "
                "no such metric: evaluate more seldom, or raise privacy.evaluation_share"
            )
            return {"evaluation": "noised", "evaluation_abandoned": [why]}
        return {
            "evaluation": "noised",
            "held_out": found.metrics,
            "standard_error": found.errors,
        }
