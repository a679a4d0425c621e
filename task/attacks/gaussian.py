"""Attackers send noise (Blanchard et al. 2017, section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from task.attacks.base import Attack
from task.options import real


class Gaussian(Attack):
    """Send noise."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._std = real(options, "attack.std", positive=True)

    def craft(self, own: Tensor, honest: Tensor, generator: torch.Generator) -> Tensor:
        """Send noise of the same standard deviation in every coordinate."""
        return self._std * torch.randn(own.shape, generator=generator, dtype=own.dtype)


def build(options: Mapping[str, Any]) -> Attack:
    """Build from ``std``."""
    return Gaussian(options)
