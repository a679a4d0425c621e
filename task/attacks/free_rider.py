"""Attackers train nothing, and send the model back with a little noise (Fraboni et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from task.attacks.base import Attack
from task.options import real


class FreeRider(Attack):
    """Send the global model in disguise."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._std = real(options, "attack.std")

    def craft(self, own: Tensor, honest: Tensor, generator: torch.Generator) -> Tensor:
        """Send no update but noise."""
        return self._std * torch.randn(own.shape, generator=generator, dtype=own.dtype)


def build(options: Mapping[str, Any]) -> Attack:
    """Build from ``std``."""
    return FreeRider(options)
