"""What a defence sees of a round, and what it may change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Stack:
    """The valid answers of a round.

    Attributes
    ----------
    updates : Tensor, shape (rows, p)
        What changed of the global model.
    weights : tuple of int
        How many examples each row counts as.
    members : tuple of tuple of int
        Whose answers each row holds, by their positions among those that came.
    """

    updates: Tensor
    weights: tuple[int, ...]
    members: tuple[tuple[int, ...], ...]

    def within(self, rows: Iterable[int]) -> list[int]:
        """Return the positions of the answers in some rows, ascending."""
        return sorted(position for row in rows for position in self.members[row])


class Defence:
    """Changes updates, whatever strategy comes after."""

    def apply(self, stack: Stack, number: int) -> tuple[Stack, dict[str, list[int]]]:
        """Return what goes on to the strategy in a round, and what was done to whom.

        The latter by a verb in the past, such as ``clipped``, to positions of answers.
        """
        raise NotImplementedError
