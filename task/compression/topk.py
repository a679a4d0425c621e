"""The largest values of an update travel, and the others wait (Stich et al. 2018, "MemSGD").

What is not sent is added to the next update: without such error feedback, small values would never
be sent (Karimireddy et al. 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from task.compression._bits import placed, positions
from task.compression._sparse import count_of, share_of
from task.compression.base import Compressor, Layout, Packet, floats, taken
from task.training import Memory

_LARGEST = float(np.finfo(np.float16).max)


class TopK(Compressor):
    """Sends a share of the values in half precision, and where they belong.

    Parameters
    ----------
    share : float
        In (0, 1].
    feedback : bool
        Whether the others wait.
    """

    def __init__(self, share: float, feedback: bool) -> None:
        self._share = share
        self.feedback = feedback

    def encode(
        self, update: Tensor, layout: Layout, memory: Memory, seed: int
    ) -> tuple[Packet, Memory]:
        """Pick the values with the largest magnitudes."""
        count = count_of(self._share, layout.size)
        places = update.abs().topk(count, sorted=False).indices.sort().values
        values = update[places].clamp(-_LARGEST, _LARGEST).numpy().astype(np.float16)
        return {"values": values, **positions(places.numpy(), layout.size)}, {}

    def decode(self, packet: Packet, layout: Layout, seed: int) -> Tensor:
        """Return them among zeros."""
        count = count_of(self._share, layout.size)
        values = taken(packet, "values", np.float16, count)
        places = torch.from_numpy(placed(packet, count, layout.size))
        return torch.zeros(layout.size).index_copy_(0, places, floats(values))


def build(options: Mapping[str, Any]) -> TopK:
    """Build from ``share`` and ``error_feedback``."""
    return TopK(share_of(options), bool(options["error_feedback"]))
