"""A model whose trainable parameters are one flat vector.

One vector makes optimiser steps, proximal terms, clipping and noise single tensor operations,
however many layers there are; the module's parameters are views into it.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from conf.schema import Settings
from task.aggregation import flatten
from task.base import ModelSpec
from task.registry import find

State = dict[str, NDArray[Any]]
"""A state dict as arrays."""


class FlatModel:
    """A module with its trainable parameters in one vector.

    Attributes
    ----------
    module : nn.Module
        Computes; its trainable parameters and their gradients are views.
    vector : nn.Parameter, shape (p,)
        All trainable parameters; ``vector.grad`` is all gradients.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
        parameters = list(trainable.values())
        self._is_state = list(trainable) == list(module.state_dict())
        self._shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
        self._loaded: tuple[State, Tensor] | None = None
        flat = torch.cat([p.detach().reshape(-1) for p in parameters])
        self.vector = nn.Parameter(flat)
        self.vector.grad = torch.zeros_like(flat)
        sizes = [p.numel() for p in parameters]
        views = zip(
            torch.split(flat, sizes), torch.split(self.gradient, sizes), parameters, strict=True
        )
        for value, gradient, parameter in views:
            parameter.data = value.view_as(parameter)
            parameter.grad = gradient.view_as(parameter)

    @property
    def gradient(self) -> Tensor:
        """All gradients, shape (p,)."""
        return cast(Tensor, self.vector.grad)

    def zero_grad(self) -> None:
        """Zero the gradients in place, so that they stay views."""
        self.gradient.zero_()

    def values(self) -> Tensor:
        """Return the whole state dict as one vector, in its order; valid until the next step."""
        return self.vector.detach() if self._is_state else flatten(self.module.state_dict())

    def load(self, state: State) -> None:
        """Copy a state dict into the module; one that was just loaded is remembered as a vector.

        Raises
        ------
        RuntimeError
            If its keys or shapes are not the module's.
        """
        if self._loaded is None or self._loaded[0] is not state:
            if not self._is_state or {k: v.shape for k, v in state.items()} != self._shapes:
                copies = {key: torch.from_numpy(value.copy()) for key, value in state.items()}
                self.module.load_state_dict(copies)
                return
            flat = np.concatenate([state[key].reshape(-1) for key in self._shapes])
            self._loaded = (state, torch.from_numpy(flat).to(self.vector.device))
        self.vector.data.copy_(self._loaded[1])

    def state(self) -> dict[str, Tensor]:
        """Return a copy of the module's state dict."""
        return {key: value.detach().clone() for key, value in self.module.state_dict().items()}

    def state_of(self, values: Tensor, keys: Collection[str] | None = None) -> dict[str, Tensor]:
        """Return `values`, in the order of `values()`, as a state dict of copies.

        With `keys` they are the values of no more than those.
        """
        state = self.module.state_dict()
        if keys is not None:
            state = {key: state[key] for key in keys}
        parts = torch.split(values.detach(), [value.numel() for value in state.values()])
        return {
            key: part.view_as(value).to(value.dtype, copy=True)
            for (key, value), part in zip(state.items(), parts, strict=True)
        }

    @cached_property
    def trainable(self) -> Tensor:
        """1 for each of `values()` that is a trainable parameter, and 0 for the others."""
        names = {name for name, p in self.module.named_parameters() if p.requires_grad}
        state = self.module.state_dict()
        return flatten(
            {k: torch.full_like(v, k in names, dtype=torch.float32) for k, v in state.items()}
        )


def build_model(settings: Settings, spec: ModelSpec) -> nn.Module:
    """Build the model that the settings name.

    Its initial weights are those that ``torch.manual_seed(seed)`` gives it anywhere.
    """
    build = find("task.models", settings.model.name).build
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        module: Any = build(settings.model.options, spec)
    return cast(nn.Module, module)
