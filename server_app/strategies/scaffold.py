"""SCAFFOLD: control variates against client drift (Karimireddy et al. 2020, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy

from server_app.strategies._moving import Answers, Moving, Vector
from task.client_update.scaffold import CONTROL
from task.options import real


class Scaffold(Moving):
    """Keeps c, the mean of all clients' control variates; those not asked keep theirs.

    Attributes
    ----------
    control : array, shape (p,), or None
        c; None before the first round, when all variates are zero.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._lr = real(options, "strategy.server_lr", positive=True)
        self.control: Vector | None = None

    def told(self) -> dict[str, Vector]:
        """Send c."""
        return {} if self.control is None else {CONTROL: self.control}

    def move(self, before: Vector, mean: Vector, answers: Answers) -> Vector:
        """Go ``server_lr`` of the way to the mean; c moves by |S|/N of its clients' changes."""
        change = answers.share * answers.mean(answers.vectors[CONTROL])
        self.control = change if self.control is None else self.control + change
        return np.asarray(before + self._lr * (mean - before))


def build(options: Mapping[str, Any]) -> Strategy:
    """Build from ``server_lr`` and ``weighting``."""
    return Scaffold(options)
