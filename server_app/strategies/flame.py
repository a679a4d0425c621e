"""The largest bunch of directions, clipped, with a little noise (Nguyen et al. 2022, FLAME)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from server_app.strategies._robust import Robust
from task.options import real
from task.robust.flame import flame
from task.seeding import derive


class Flame(Robust):
    """Admits more than half of the clients, those whose updates point the same way."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self._noise = noise

    def rule(self, updates: Tensor, number: int) -> Tensor:
        """Cluster, clip, average, add noise, which protects nobody's privacy and is seeded."""
        generator = torch.Generator().manual_seed(derive(self._seed, "flame", number))
        aggregate, admitted = flame(updates, self._noise, generator)
        self.keep(len(updates), admitted)
        return aggregate


def build(options: Mapping[str, Any]) -> Strategy:
    """Build from ``noise``."""
    return Flame(real(options, "strategy.noise"))
