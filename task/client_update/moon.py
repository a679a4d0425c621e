"""MOON's clients: representations near the global model's, and away from their own last one's.

Li, He and Song 2021, "Model-Contrastive Federated Learning", equations 2 and 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, softplus

from conf.errors import FedproofError
from conf.schema import Settings
from task.client_update.base import ClientUpdate, Update, Work
from task.flat import FlatModel
from task.options import real
from task.privacy.policy import mechanism_of
from task.training import Penalty

PREVIOUS = "previous"
_ROWS = 256
"""Rows that are represented at once."""


class Moon(ClientUpdate):
    """Adds ``mu`` × the contrastive loss, whose similarities are divided by ``temperature``."""

    keeps = True
    stackable = False

    def __init__(self, mu: float, temperature: float) -> None:
        self._mu = mu
        self._temperature = temperature

    def check(self, module: nn.Module) -> None:
        """Refuse a model without a representation that training changes."""
        last = representing(module)
        before = (p for p in module.parameters() if p.requires_grad)
        if all(any(p is q for q in last.parameters()) for p in before):
            raise FedproofError(
                "strategy=moon contrasts what a model's last dense layer is given, and with this "
                "model that is the input itself: choose one with a hidden layer."
            )

    def run(self, work: Work) -> Update:
        """Train one client; in its first round there is nothing to keep away from."""
        previous = work.own(PREVIOUS)
        if previous is None or not self._mu:
            trained = work.fit()
        else:
            with captured(work.model.module) as seen:
                penalty = self._penalty(work, previous, seen)
                trained = work.fit(penalty=penalty)
        values = work.model.values()
        return Update(values, work.keeping(trained, **{PREVIOUS: values}))

    def _penalty(self, work: Work, previous: Tensor, seen: list[Tensor]) -> Penalty:
        """Return the contrastive loss, with what both fixed models make of every row."""
        model, start = work.model, work.model.values().clone()
        near = _represented(model, work.data.x, seen)
        _put(model, previous)
        far = _represented(model, work.data.x, seen)
        _put(model, start)

        def penalty(rows: Tensor) -> Tensor:
            own = seen[-1]
            towards = cosine_similarity(own, near[rows], dim=-1)
            away = cosine_similarity(own, far[rows], dim=-1)
            # -log(e^t / (e^t + e^a)) without overflow.
            return self._mu * softplus((away - towards) / self._temperature).mean()

        return penalty


def representing(module: nn.Module) -> nn.Linear:
    """Return the last dense layer, whose input is the representation.

    Raises
    ------
    FedproofError
        If there is none.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise FedproofError("strategy=moon needs a model with a dense layer: choose another model.")
    return layers[-1]


@contextmanager
def captured(module: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list that always holds the representations of the last forward pass."""
    seen: list[Tensor] = []

    def take(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[:] = [inputs[0]]

    handle = representing(module).register_forward_pre_hook(take)
    try:
        yield seen
    finally:
        handle.remove()


@torch.no_grad()
def _represented(model: FlatModel, x: Tensor, seen: list[Tensor]) -> Tensor:
    """Return the representation of every row, without dropout."""
    model.module.eval()
    parts = []
    for rows in torch.split(x, _ROWS):
        model.module(rows)
        parts.append(seen[-1])
    return torch.cat(parts)


def _put(model: FlatModel, values: Tensor) -> None:
    model.module.load_state_dict(model.state_of(values))


def build(settings: Settings) -> ClientUpdate:
    """Build from ``mu`` and ``temperature``.

    Raises
    ------
    FedproofError
        If each example's gradient must be clipped, which knows the task's loss only.
    """
    privacy = mechanism_of(settings)
    if privacy is not None and privacy.unit == "record":
        raise FedproofError(
            f"strategy=moon adds a loss of its own, and privacy={settings.privacy.name} clips the "
            "gradients of the task's loss: choose strategy=fedprox, or privacy=client_dp."
        )
    options = settings.strategy.options
    return Moon(real(options, "strategy.mu"), real(options, "strategy.temperature", positive=True))
