"""As far from the honest mean as honest updates are from each other (Shejwalkar and Houmansadr
2021): both attacks move along one direction, and differ in how they measure how far is too far.

‖mean + γ·direction - u_i‖² is quadratic in γ, so the largest γ is a root and needs no search.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from task.attacks.base import Omniscient, scatter
from task.options import choice

DIRECTIONS = ("std", "mean", "sign")
"""Against the standard deviation, the mean, or its signs: sections IV-C and A of the paper."""


class Farthest(Omniscient):
    """Move against a direction as far as is allowed."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._direction = choice(options, "attack.direction", DIRECTIONS)

    def forge(self, honest: Tensor, attackers: int) -> Tensor:
        """Return the moved mean."""
        wide = honest.double()
        mean = wide.mean(dim=0)
        against = {"std": scatter(wide), "mean": mean, "sign": mean.sign()}[self._direction]
        direction = -against / against.norm().clamp_min(torch.finfo(torch.float64).tiny)
        offsets = mean - wide
        lengths, slopes = offsets.square().sum(dim=1), offsets @ direction
        moved: Tensor = mean + self.longest(wide, lengths, slopes) * direction
        return moved.to(honest.dtype)

    def longest(self, honest: Tensor, lengths: Tensor, slopes: Tensor) -> Tensor:
        """Return γ; the squared distance to client i is lengths_i + 2·γ·slopes_i + γ²."""
        raise NotImplementedError


def root(length: Tensor, slope: Tensor, most: Tensor) -> Tensor:
    """Return the larger γ with length + 2·γ·slope + γ² = most."""
    return (slope.square() + most - length).clamp_min(0.0).sqrt() - slope
