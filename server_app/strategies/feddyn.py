"""FedDyn: dynamic regularisation (Acar et al. 2021, Algorithm 1); the clients apply it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy

from server_app.strategies._moving import Answers, Moving, Vector


class FedDyn(Moving):
    """The clients' mean, corrected by how far all clients have moved so far.

    Attributes
    ----------
    moved : array, shape (s,), or None
        The paper's ``-h / alpha``: the sum over all rounds of the clients' moves, in which a
        client counts by its share of the federation.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.moved: Vector | None = None

    def move(self, before: Vector, mean: Vector, answers: Answers) -> Vector:
        """Add the moves up; go on from the mean by their sum."""
        moved = answers.share * (mean - before)
        self.moved = moved if self.moved is None else self.moved + moved
        return np.asarray(mean + self.moved)


def build(options: Mapping[str, Any]) -> Strategy:
    """Build from ``weighting``; ``alpha`` is the clients'."""
    return FedDyn(options)
