"""Random values of an update travel; which ones follows from the seed (Konečný et al. 2016).

The sketched updates of their section 3, "subsampling": each client draws a mask of its own in each
round, and the server draws the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from task.compression._sparse import count_of, share_of
from task.compression.base import Compressor, Layout, MalformedError, Packet, floats, taken
from task.training import Memory


class RandomMask(Compressor):
    """Sends a share of the values.

    Parameters
    ----------
    share : float
        In (0, 1].
    feedback : bool
        Whether the others wait. Otherwise those that are sent stand for them, too: they are
        divided by their share, so that the mean is right, and far off in each single case.
    """

    def __init__(self, share: float, feedback: bool) -> None:
        self._share = share
        self.feedback = feedback
        self._mask: tuple[tuple[int, int], Tensor] | None = None

    def encode(
        self, update: Tensor, layout: Layout, memory: Memory, seed: int
    ) -> tuple[Packet, Memory]:
        """Pick the values under the mask."""
        return {"values": update[self._places(layout.size, seed)].numpy()}, {}

    def decode(self, packet: Packet, layout: Layout, seed: int) -> Tensor:
        """Return them among zeros."""
        size = layout.size
        places = self._places(size, seed)
        values = floats(taken(packet, "values", np.float32, len(places)))
        if not self.feedback:
            values = values * (size / len(places))
            if not torch.isfinite(values).all():
                raise MalformedError("holds values that are too large")
        return torch.zeros(size).index_copy_(0, places, values)

    def _places(self, size: int, seed: int) -> Tensor:
        # What was encoded is decoded at once, to know what of it arrives: the last mask is kept.
        if self._mask is None or self._mask[0] != (size, seed):
            count = count_of(self._share, size)
            drawn = np.random.default_rng(seed).choice(size, count, replace=False, shuffle=False)
            self._mask = (size, seed), torch.from_numpy(drawn)
        return self._mask[1]


def build(options: Mapping[str, Any]) -> RandomMask:
    """Build from ``share`` and ``error_feedback``."""
    return RandomMask(share_of(options), bool(options["error_feedback"]))
