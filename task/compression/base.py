"""What a compressor is to the rest: a vector becomes a few arrays, and those a vector again."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from task.training import Memory

Packet = dict[str, NDArray[Any]]
"""A compressed vector: what travels, by name."""


class MalformedError(ValueError):
    """A packet that no compressor with these settings has made."""


@dataclass(frozen=True)
class Layout:
    """The trainable parameters that a vector holds, one after the other.

    Attributes
    ----------
    shapes : tuple of tuple of int
        Of each of them.
    """

    shapes: tuple[tuple[int, ...], ...]

    @cached_property
    def size(self) -> int:
        """Length of the vector, p."""
        return sum(self.sizes)

    @cached_property
    def sizes(self) -> list[int]:
        """Length of each parameter's part."""
        return [math.prod(shape) for shape in self.shapes]


class Compressor(ABC):
    """Shortens vectors. What it remembers from one to the next is given and returned.

    Attributes
    ----------
    feedback : bool
        Whether what is lost of a vector is to be added to the next one: error feedback
        (Karimireddy et al. 2019, Algorithm 2), for what is biased.
    remembers : bool
        Whether it has a memory of its own.
    """

    feedback: bool = False
    remembers: bool = False

    @abstractmethod
    def encode(
        self, update: Tensor, layout: Layout, memory: Memory, seed: int
    ) -> tuple[Packet, Memory]:
        """Shorten a vector.

        Parameters
        ----------
        update : Tensor of float32, shape (p,)
            Finite values, on the CPU.
        layout : Layout
            What they are.
        memory : dict of str to Tensor
            What was returned with the last vector; empty at first.
        seed : int
            Fixes whatever is drawn.

        Returns
        -------
        dict of str to array, dict of str to Tensor
            What travels, and what to remember.
        """

    @abstractmethod
    def decode(self, packet: Packet, layout: Layout, seed: int) -> Tensor:
        """Return the vector that a packet stands for.

        Parameters
        ----------
        packet : dict of str to array
            From anybody.
        layout, seed
            Those that it was encoded with.

        Returns
        -------
        Tensor of float32, shape (p,)
            Finite values.

        Raises
        ------
        MalformedError
            If it stands for none.
        """


def taken(packet: Mapping[str, Any], name: str, dtype: Any, size: int) -> NDArray[Any]:
    """Return one array of a packet, of this type and shape (size,), its numbers finite.

    Raises
    ------
    MalformedError
        If it is something else.
    """
    values = packet.get(name)
    if not isinstance(values, np.ndarray) or values.dtype != dtype or values.shape != (size,):
        raise MalformedError(f"holds no '{name}' of {size} {np.dtype(dtype)}")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise MalformedError(f"holds NaN or infinity in '{name}'")
    return values


def floats(values: NDArray[Any]) -> Tensor:
    """Return a copy of an array as a Tensor of float32."""
    return torch.from_numpy(values.astype(np.float32))
