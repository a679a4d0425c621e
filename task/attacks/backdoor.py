"""A backdoor with a trigger, and model replacement (Bagdasaryan et al. 2020).

Rows with the trigger are to be read as the target class, all others as ever. The trigger is a
bright patch in the last corner of an image, or the first features of a table's row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from conf.errors import FedproofError
from task.attacks.base import Attack, require_classes
from task.base import Examples
from task.options import real, whole


class Backdoor(Attack):
    """Train on some rows with the trigger, and send the update times ``boost``.

    With boost = clients / attackers the mean is the attackers' model (equation 3 there).
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._target = whole(options, "attack.target", 0)
        self._share = real(options, "attack.share", most=1)
        self._size = whole(options, "attack.size", 1)
        self._value = float(options["value"])
        self._boost = real(options, "attack.boost", positive=True)

    def poison(self, rows: Examples, outputs: int, generator: torch.Generator) -> Examples:
        """Put the trigger on a share of the rows, and the target into their labels."""
        chosen = torch.rand(len(rows), generator=generator) < self._share
        marked = self._marked(rows, outputs)
        keep = (~chosen).reshape(-1, *[1] * (rows.x.dim() - 1))
        return Examples(torch.where(keep, rows.x, marked.x), torch.where(chosen, marked.y, rows.y))

    def trigger(self, rows: Examples, outputs: int) -> Examples | None:
        """Put the trigger on the rows of all other classes."""
        others = rows.y != self._target
        return self._marked(Examples(rows.x[others], rows.y[others]), outputs)

    def craft(self, own: Tensor, honest: Tensor, generator: torch.Generator) -> Tensor:
        """Boost the updates."""
        return self._boost * own

    def _marked(self, rows: Examples, outputs: int) -> Examples:
        require_classes(rows, "backdoor")
        if not rows.x.is_floating_point():
            raise FedproofError("attack=backdoor needs images or features: choose another task.")
        if self._target >= max(outputs, 2):
            raise FedproofError(f"attack.target={self._target} is no class of this task.")
        x = rows.x.clone()
        if x.dim() >= 3:
            x[..., -self._size :, -self._size :] = self._value
        else:
            x[..., : self._size] = self._value
        return Examples(x, torch.full_like(rows.y, self._target))


def build(options: Mapping[str, Any]) -> Attack:
    """Build from ``target``, ``share``, ``size``, ``value`` and ``boost``."""
    return Backdoor(options)
