"""Attackers go the other way: they send -scale times what they trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from task.attacks.base import Attack
from task.options import real


class SignFlip(Attack):
    """Turn the update around."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._scale = real(options, "attack.scale", positive=True)

    def craft(self, own: Tensor, honest: Tensor, generator: torch.Generator) -> Tensor:
        """Turn the updates around."""
        return -self._scale * own


def build(options: Mapping[str, Any]) -> Attack:
    """Build from ``scale``."""
    return SignFlip(options)
