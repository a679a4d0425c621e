"""Clipping norms that follow a quantile (Andrew, Thakkar, McMahan and Ramaswamy 2021).

How many norms were below the clip is released with noise of its own. That noise and the sum's
together are one Gaussian mechanism with the noise multiplier that is accounted (their Theorem 1),
so the sum gets a little more noise than without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from task.privacy.noise import SecureNoise

_COUNT_SHARE = 20.0
"""The count's noise, as a share of the expected number of norms (their section 3)."""


@dataclass(frozen=True)
class AdaptiveClip:
    """How a clip changes from release to release.

    Attributes
    ----------
    quantile : float
        Share of norms that should not exceed the clip.
    lr : float
        Of the geometric update.
    sigma : float
        Noise multiplier of sum and count together.
    expected : float
        Number of norms in expectation.
    """

    quantile: float
    lr: float
    sigma: float
    expected: float

    @property
    def sigma_count(self) -> float:
        """Standard deviation of the noise on the count."""
        return max(self.expected / _COUNT_SHARE, self.sigma)

    @property
    def sigma_sum(self) -> float:
        """Noise multiplier of the sum."""
        # One client moves the count, centred at half the number, by one half.
        return float((self.sigma**-2 - (2 * self.sigma_count) ** -2) ** -0.5)

    def updated(self, clip: float, centred: float, noise: SecureNoise) -> float:
        """Return the next clip.

        Parameters
        ----------
        clip : float
            The last one.
        centred : float
            Norms that did not exceed it, less half the number of norms.
        noise : SecureNoise
            Of the count.
        """
        count = float(noise.noised(np.array([centred]), self.sigma_count)[0])
        share = count / self.expected + 0.5
        return clip * math.exp(-self.lr * (min(max(share, 0.0), 1.0) - self.quantile))
