"""How the global model lies in one vector, and clients' models in the rows of a matrix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message
from numpy.typing import NDArray
from torch import Tensor

from task.arrays import array_of, record_of, values_of

ARRAYS = "arrays"
"""Where messages hold the model, as Flower's strategies put it."""


class Layout:
    """Turns models into vectors and back.

    Parameters
    ----------
    arrays : ArrayRecord
        The global model.

    Attributes
    ----------
    size : int
        Its values, p.
    """

    def __init__(self, arrays: ArrayRecord) -> None:
        self._like = {key: values_of(array) for key, array in arrays.items()}
        self.size = sum(value.size for value in self._like.values())

    def vector(self) -> Tensor:
        """Return the global model, shape (p,)."""
        return _joined(self._like.values())

    def updates(self, replies: Sequence[Message]) -> Tensor:
        """Return what valid answers changed of the global model, shape (clients, p)."""
        start = self.vector()
        stacked = torch.empty(len(replies), self.size, dtype=start.dtype)
        for row, reply in zip(stacked, replies, strict=True):
            arrays = reply.content[ARRAYS]
            assert isinstance(arrays, ArrayRecord)
            torch.sub(flat(arrays.values()), start, out=row)
        return stacked

    def arrays_of(self, values: Tensor) -> ArrayRecord:
        """Return a vector of shape (p,) in the shapes of the global model."""
        parts = torch.split(values, [value.size for value in self._like.values()])
        return record_of(
            {
                key: array_of(part.numpy().astype(value.dtype).reshape(value.shape))
                for (key, value), part in zip(self._like.items(), parts, strict=True)
            }
        )


def flat(arrays: Iterable[Array]) -> Tensor:
    """Return the values of arrays as one vector."""
    return _joined(values_of(array) for array in arrays)


def _joined(values: Iterable[NDArray[Any]]) -> Tensor:
    parts = [value.reshape(-1) for value in values]
    return torch.from_numpy(np.concatenate(parts)) if parts else torch.empty(0)
