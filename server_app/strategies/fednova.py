"""FedNova: clients that take more steps do not pull the model further (Wang et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from server_app.federation.validation import InvalidAnswerError
from server_app.strategies._moving import Answers, Moving, Vector
from task.client_update._steps import accumulated
from task.options import real
from task.wire import records


class FedNova(Moving):
    """Normalised averaging: ``x + tau_eff sum_i p_i (y_i - x) / ‖a_i‖₁``, equation 7 there.

    ``tau_eff = sum_i p_i ‖a_i‖₁``; with equal steps it is FedAvg.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._mu = real(options, "strategy.proximal_mu")

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Tell clients the weight of the proximal term."""
        config["proximal-mu"] = self._mu
        return super().configure_train(server_round, arrays, config, grid)

    def check(self, content: RecordDict, rows: int) -> None:
        """Refuse more steps than the client's rows allow: they would scale everybody's update."""
        most = self.around.settings.train.steps_on(rows)
        steps = records(content, MetricRecord)[0].get("steps")
        if type(steps) is not int or not 1 <= steps <= most:
            raise InvalidAnswerError(f"it claims {steps} local steps; its rows allow {most}")

    def move(self, before: Vector, mean: Vector, answers: Answers) -> Vector:
        """Average updates per unit of what each client's gradients weigh in them."""
        train = self.around.settings.train
        lengths = np.array(
            [
                accumulated(int(str(m["steps"])), train.momentum, train.lr * self._mu)
                for m in answers.metrics
            ]
        )
        effective = float(answers.weights @ lengths)
        factors = effective / lengths
        whole = float(answers.weights @ factors)
        return np.asarray(before + answers.mean(answers.models, factors) - whole * before)


def build(options: Mapping[str, Any]) -> Strategy:
    """Build from ``proximal_mu`` and ``weighting``."""
    return FedNova(options)
