"""Attackers claim more rows than anybody has, so that the mean is theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from task.attacks.base import Attack
from task.options import real, whole


class WeightInflation(Attack):
    """Claim rows, and turn the update around so that it shows.

    With ``joins`` the lie is told when the client joins already, as far as
    ``federation.max_examples`` lets it in, so that no answer contradicts it.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._examples = whole(options, "attack.examples", 1)
        self._scale = real(options, "attack.scale", positive=True)
        self._joins = bool(options["joins"])

    def craft(self, own: Tensor, honest: Tensor, generator: torch.Generator) -> Tensor:
        """Turn the updates around."""
        return -self._scale * own

    def claim(self, rows: int, joined: int) -> int:
        """Claim what the attack is told to, or what it joined with."""
        return joined if self._joins else self._examples

    def joins_with(self, rows: int) -> int:
        """Tell the truth, or the same lie."""
        return self._examples if self._joins else rows


def build(options: Mapping[str, Any]) -> Attack:
    """Build from ``examples``, ``scale`` and ``joins``."""
    return WeightInflation(options)
