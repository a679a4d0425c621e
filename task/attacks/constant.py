"""Attackers send one number everywhere: nothing, something huge, infinity, or no number at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from task.attacks.base import Attack


class Constant(Attack):
    """Send one number as every coordinate of the update."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._value = float(options["value"])

    def craft(self, own: Tensor, honest: Tensor, generator: torch.Generator) -> Tensor:
        """Send the number."""
        return torch.full_like(own, self._value)


def build(options: Mapping[str, Any]) -> Attack:
    """Build from ``value``: any float, NaN and infinity among them."""
    return Constant(options)
