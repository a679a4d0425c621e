"""Stochastic quantisation: each value becomes one of the two levels around it, on average itself.

QSGD (Alistarh et al. 2017, section 3.1) in blocks, each scaled by its largest magnitude instead of
its norm, as its authors do in practice (section 4): with s levels on each side of zero, the
variance of a value is at most (largest / s)² / 4. One bit leaves no level for zero: then values
become plus or minus the largest (Suresh et al. 2017, section 2).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from task.compression._bits import length, packed, unpacked
from task.compression.base import Compressor, Layout, MalformedError, Packet, floats, taken
from task.training import Memory


class Blocks(Compressor):
    """Sends so many bits per value, and the largest magnitude of each block.

    Parameters
    ----------
    bits : int
        From 1 to 8.
    block : int
        Values that share a scale.
    """

    def __init__(self, bits: int, block: int) -> None:
        self._bits, self._block = bits, block
        self._levels = 2.0 ** (bits - 1) - 1 if bits > 1 else 0.5

    def encode(
        self, update: Tensor, layout: Layout, memory: Memory, seed: int
    ) -> tuple[Packet, Memory]:
        """Round up or down, with the chances that make the mean right."""
        rows = self._rows(update)
        largest = rows.abs().amax(1, keepdim=True)
        chance = np.random.default_rng(seed).random(rows.shape, np.float32)
        # What is too small to be divided by counts as zero.
        steps = torch.where(largest > 0, rows / largest, 0.0).nan_to_num_(0.0).clamp_(-1.0, 1.0)
        steps.add_(1.0).mul_(self._levels).add_(torch.from_numpy(chance)).floor_()
        codes = steps.clamp_max_(2 * self._levels).view(-1)[: len(update)].numpy()
        values = packed(codes.astype(np.uint8), self._bits)
        return {"values": values, "scales": largest.view(-1).numpy()}, {}

    def decode(self, packet: Packet, layout: Layout, seed: int) -> Tensor:
        """Return the levels."""
        size = layout.size
        data = taken(packet, "values", np.uint8, length(self._bits, size))
        scales = taken(packet, "scales", np.float32, -(-size // self._block))
        codes = unpacked(data, self._bits, size)
        if codes.max(initial=0) > 2 * self._levels or (scales < 0).any():
            raise MalformedError("holds levels that there are not")
        steps = floats(codes).sub_(self._levels).div_(self._levels)
        return self._rows(steps).mul(floats(scales)[:, None]).view(-1)[:size]

    def _rows(self, values: Tensor) -> Tensor:
        """Return blocks as rows, the last one filled up."""
        filled = torch.nn.functional.pad(values, (0, -len(values) % self._block))
        return filled.view(-1, self._block)
