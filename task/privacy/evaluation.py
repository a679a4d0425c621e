"""Evaluation as a release: what may leave of it, and the noise on sums over held-out rows.

Importing this must not import torch: what a silo's policy says is known without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from task.privacy.accounting import Spend

if TYPE_CHECKING:
    from task.bounded import Bounded
    from task.privacy.noise import SecureNoise


class Evaluations(StrEnum):
    """What leaves of an evaluation (``privacy.evaluation``)."""

    exact = "exact"
    noised = "noised"
    none = "none"


@dataclass(frozen=True)
class EvaluationNoise:
    """How one evaluation of one client is protected.

    Attributes
    ----------
    sigma : float
        Standard deviation of the noise over the sensitivity.
    per_client : bool
        Whether a client's whole contribution is bounded (the mean over its rows), or each row's.
    """

    sigma: float
    per_client: bool

    @property
    def spend(self) -> Spend:
        """What one evaluation releases; nothing amplifies it."""
        return Spend(self.sigma, 1.0, 1)

    def deviation(self, bounded: Bounded) -> float:
        """Return the standard deviation of the noise in a block of weight 1."""
        return self.sigma * bounded.sensitivity

    def noised(
        self, sums: Mapping[str, Sequence[float]], bounded: Bounded, noise: SecureNoise
    ) -> dict[str, list[float]]:
        """Return sums with noise, block by block.

        A block and its noise divided by the block's weight: the same as noise of one deviation on
        the weighted vector.
        """
        return {
            name: noise.noised(
                np.array(sums[name], np.float64), self.deviation(bounded) / block.weight
            ).tolist()
            for name, block in bounded.blocks.items()
        }
