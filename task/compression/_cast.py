"""Floating-point numbers of 16 bits, rounded to the nearest."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from task.compression.base import Compressor, Layout, MalformedError, Packet, taken
from task.training import Memory


class Cast(Compressor):
    """Sends every value in half as many bits.

    Parameters
    ----------
    dtype : torch.dtype
        Of 16 bits.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._largest = torch.finfo(dtype).max

    def encode(
        self, update: Tensor, layout: Layout, memory: Memory, seed: int
    ) -> tuple[Packet, Memory]:
        """Round; what is too large becomes the largest number that there is."""
        short = update.clamp(-self._largest, self._largest).to(self._dtype)
        # NumPy has no bfloat16: the bits travel as integers, whatever they mean.
        return {"values": short.view(torch.int16).numpy().view(np.uint16)}, {}

    def decode(self, packet: Packet, layout: Layout, seed: int) -> Tensor:
        """Return the rounded values."""
        bits = taken(packet, "values", np.uint16, layout.size)
        values = torch.from_numpy(bits.view(np.int16).copy()).view(self._dtype).float()
        if not torch.isfinite(values).all():
            raise MalformedError("holds NaN or infinity in 'values'")
        return values


FP16 = Cast(torch.float16)
BF16 = Cast(torch.bfloat16)
