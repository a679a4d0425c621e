"""Attackers train on turned labels: class c becomes C - 1 - c (Fang et al. 2020, section 5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from task.attacks.base import Attack, DataAttack, require_classes
from task.base import Examples


class LabelFlip(DataAttack):
    """Turn the labels."""

    def poison(self, rows: Examples, outputs: int, generator: torch.Generator) -> Examples:
        """Turn every label; binary ones are 0 and 1."""
        require_classes(rows, "label_flip")
        return Examples(rows.x, max(outputs - 1, 1) - rows.y)


def build(options: Mapping[str, Any]) -> Attack:
    """Build the attack."""
    return LabelFlip(options)
