"""Updates clipped around the last aggregate (Karimireddy et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from torch import Tensor

from server_app.strategies._robust import Robust
from task.options import real, whole
from task.robust.centered_clipping import centered_clipping

GROUPS_SUFFICE = True


class CenteredClipping(Robust):
    """Goes on from the update of the round before, which a checkpoint keeps.

    Attributes
    ----------
    center : ndarray of float32, shape (p,), or None
        That update.
    """

    def __init__(self, radius: float | None, steps: int) -> None:
        super().__init__()
        self._radius, self._steps = radius, steps
        self.center: NDArray[np.float32] | None = None

    def rule(self, updates: Tensor, number: int) -> Tensor:
        """Clip around the centre, and move it."""
        center = torch.zeros_like(updates[0])
        if self.center is not None:
            center = torch.from_numpy(self.center)
        moved, _ = centered_clipping(updates, center, self._radius, self._steps)
        self.center = moved.numpy()
        return moved


def build(options: Mapping[str, Any]) -> Strategy:
    """Build from ``radius``, None to follow the updates, and ``steps``."""
    radius = options["radius"]
    if radius is not None:
        radius = real(options, "strategy.radius", positive=True)
    return CenteredClipping(radius, whole(options, "strategy.steps", 1))
