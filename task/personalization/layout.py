"""Which values of a model travel, and which are the client's own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from task.clusters import numbered
from task.flat import FlatModel, State
from task.personalization.base import recalled


class Layout:
    """A model's state dict in two parts.

    Parameters
    ----------
    module : nn.Module
        With the initial weights that the run's seed gives everybody.
    private : collection of str
        Names in its state dict that never leave a client.
    numbered : bool
        Whether the model is one of several, and its arrays' names say which.
    """

    def __init__(
        self, module: nn.Module, private: Collection[str] = (), *, numbered: bool = False
    ) -> None:
        state = module.state_dict()
        self._initial = {key: value.numpy() for key, value in state.items()}
        self._sizes = [value.numel() for value in state.values()]
        self._travels = [key not in private for key in state]
        self._numbered = numbered
        self._shared = [key for key in state if key not in private]
        self.whole = not private
        """Whether all of it travels."""

    @property
    def size(self) -> int:
        """How many values travel."""
        return sum(s for s, travels in zip(self._sizes, self._travels, strict=True) if travels)

    def of(self, values: Tensor) -> Tensor:
        """Return those of all values, in the order of `FlatModel.values`, that travel."""
        if self.whole:
            return values
        parts = zip(torch.split(values, self._sizes), self._travels, strict=True)
        return torch.cat([values[:0], *(part for part, travels in parts if travels)])

    def initial(self) -> State:
        """Return the initial weights that travel."""
        return {key: self._initial[key] for key in self._shared}

    def state_of(self, model: FlatModel, values: Tensor, number: int) -> dict[str, Tensor]:
        """Return values that `of` returned under the names that they travel with.

        Parameters
        ----------
        model : FlatModel
            With the shapes and types.
        values : Tensor, shape (size,)
            What travels.
        number : int
            Which model it is, of several.
        """
        state = model.state_of(values, self._shared)
        return numbered(state, number) if self._numbered else state

    def complete(self, shared: State, kept: Mapping[str, Tensor]) -> State:
        """Return a whole state dict: what came, what the client kept, or else initial weights.

        Raises
        ------
        RuntimeError
            If other values came than travel.
        """
        if self.whole:
            return shared
        if set(shared) != set(self._shared):
            raise RuntimeError("it holds other parameters than those that are shared")
        own: dict[str, Any] = {key: value.numpy() for key, value in recalled(kept).items()}
        merged = {**own, **shared}
        return {key: merged.get(key, value) for key, value in self._initial.items()}
