"""FedExP: the server goes further where clients disagree (Jhunjhunwala et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy

from server_app.strategies._moving import Answers, Moving, Vector
from task.options import real


class FedExP(Moving):
    """Extrapolates the mean update by the paper's equation 8.

    Attributes
    ----------
    server_lr : float
        The last round's step: ``max(1, sum_i p_i ‖d_i‖² / (2 (‖sum_i p_i d_i‖² + epsilon)))``.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._epsilon = real(options, "strategy.epsilon", positive=True)
        self.server_lr = 1.0

    def facts(self) -> dict[str, float]:
        """Record the step."""
        return {"server-lr": self.server_lr}

    def move(self, before: Vector, mean: Vector, answers: Answers) -> Vector:
        """Take the step; never a shorter one than FedAvg's."""
        trained = self.around.trainable
        squares = [float(np.square((m - before)[trained]).sum()) for m in answers.models]
        together = float(np.square((mean - before)[trained]).sum())
        spread = float(answers.weights @ squares)
        self.server_lr = max(1.0, spread / (2 * (together + self._epsilon)))
        return np.asarray(before + self.server_lr * (mean - before))


def build(options: Mapping[str, Any]) -> Strategy:
    """Build from ``epsilon`` and ``weighting``."""
    return FedExP(options)
