"""Updates of matrices travel as products of two thin ones (Vogels et al. 2019, Algorithm 1).

One step of power iteration per update, which starts from where the last one ended: P = M Q,
orthogonalised, then Q = Mᵀ P. Their workers average P before they compute Q; here each client
iterates on its own matrices, so that the server can tell one client's update from another's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from task.compression.base import Compressor, Layout, MalformedError, Packet, floats, taken
from task.options import whole
from task.training import Memory

_START = "start"
"""All matrices' Q, one after the other."""


@dataclass(frozen=True)
class _Shape:
    """A parameter as a matrix of shape (rows, columns), and the rank with which it travels.

    Rank 0 means that it travels as it is.
    """

    rows: int
    columns: int
    rank: int

    @classmethod
    def of(cls, shape: tuple[int, ...], rank: int) -> _Shape:
        rows = shape[0] if len(shape) > 1 else 1
        columns = math.prod(shape) // max(rows, 1)
        rank = min(rank, rows, columns)
        pays = len(shape) > 1 and rank * (rows + columns) < rows * columns
        return cls(rows, columns, rank if pays else 0)

    @property
    def sent(self) -> list[int]:
        """Lengths of what travels."""
        if not self.rank:
            return [self.rows * self.columns]
        return [self.rows * self.rank, self.columns * self.rank]


class PowerSGD(Compressor):
    """Sends matrices of low rank; what is no matrix, or too small a one, as it is.

    Parameters
    ----------
    rank : int
        At least 1.
    feedback : bool
        Whether what is lost waits.
    """

    remembers = True

    def __init__(self, rank: int, feedback: bool) -> None:
        self._rank = rank
        self.feedback = feedback

    def encode(
        self, update: Tensor, layout: Layout, memory: Memory, seed: int
    ) -> tuple[Packet, Memory]:
        """Iterate once on each matrix."""
        shapes = self._shapes(layout)
        starts = self._starts(shapes, memory, seed)
        sent, rights = [], []
        for part, shape, start in zip(
            torch.split(update, layout.sizes), shapes, starts, strict=True
        ):
            if not shape.rank:
                sent.append(part)
                continue
            matrix = part.view(shape.rows, shape.columns)
            left = torch.linalg.qr(matrix @ start.view(shape.columns, shape.rank)).Q
            right = matrix.T @ left
            sent += [left.reshape(-1), right.reshape(-1)]
            rights.append(right.reshape(-1))
        return {"values": torch.cat(sent).numpy()}, {_START: torch.cat(rights)} if rights else {}

    def decode(self, packet: Packet, layout: Layout, seed: int) -> Tensor:
        """Multiply each two."""
        shapes = self._shapes(layout)
        sizes = [size for shape in shapes for size in shape.sent]
        values = floats(taken(packet, "values", np.float32, sum(sizes)))
        pieces = iter(torch.split(values, sizes))
        parts = []
        for shape in shapes:
            part = next(pieces)
            if shape.rank:
                right = next(pieces).view(shape.columns, shape.rank)
                part = (part.view(shape.rows, shape.rank) @ right.T).reshape(-1)
            parts.append(part)
        update = torch.cat(parts)
        if not torch.isfinite(update).all():
            raise MalformedError("holds values that are too large")
        return update

    def _shapes(self, layout: Layout) -> list[_Shape]:
        return [_Shape.of(shape, self._rank) for shape in layout.shapes]

    def _starts(self, shapes: list[_Shape], memory: Memory, seed: int) -> tuple[Tensor, ...]:
        """Return each matrix's last Q, or a random one at first."""
        sizes = [shape.columns * shape.rank for shape in shapes]
        if _START in memory:
            return torch.split(memory[_START], sizes)
        drawn = np.random.default_rng(seed).standard_normal(sum(sizes), np.float32)
        return torch.split(torch.from_numpy(drawn), sizes)


def build(options: Mapping[str, Any]) -> PowerSGD:
    """Build from ``rank`` and ``error_feedback``."""
    return PowerSGD(whole(options, "compression.rank", 1), bool(options["error_feedback"]))
