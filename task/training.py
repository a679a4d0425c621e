"""Local training of one client in one round (McMahan et al. 2017, Algorithm 1, ClientUpdate)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conf.schema import Optimizer, TrainConfig
from task.base import Examples
from task.flat import FlatModel
from task.objectives import Objective


@dataclass(frozen=True)
class Trained:
    """What local training did: mean loss over the batches, and how many of them."""

    loss: float
    steps: int


def train(
    model: FlatModel,
    examples: Examples,
    objective: Objective,
    config: TrainConfig,
    *,
    seed: int,
    proximal_mu: float = 0.0,
) -> Trained:
    """Train `model` in place.

    Parameters
    ----------
    model : FlatModel
        Holds the global model at the start and the client's at the end.
    examples : Examples
        The client's training rows; at least one.
    config : TrainConfig
        Epochs or steps, batch size, optimiser.
    seed : int
        Fixes the order of the batches and dropout.
    proximal_mu : float
        FedProx (Li et al. 2020, eq. 2): adds mu/2 · ‖w - w_global‖² to the loss.
    """
    optimizer = _optimizer(model, config)
    start = model.vector.detach().clone() if proximal_mu else model.vector.detach()
    total, steps = torch.zeros((), dtype=torch.float64), 0
    model.module.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for index in batches(len(examples), config):
            batch = Examples(examples.x[index], examples.y[index])
            model.zero_grad()
            loss = objective.loss(model.module(batch.x), batch.y).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            if proximal_mu:
                model.gradient.add_(model.vector.detach() - start, alpha=proximal_mu)
            if config.max_grad_norm is not None:
                _clip(model.gradient, config.max_grad_norm)
            optimizer.step()
            total += loss.detach()
            steps += 1
    return Trained(loss=float(total) / max(steps, 1), steps=steps)


def batches(count: int, config: TrainConfig) -> Iterator[Tensor]:
    """Yield the row indices of each batch: reshuffled epochs, cut off after ``train.steps``."""
    per_epoch = -(-count // config.batch_size)
    left = config.steps if config.steps is not None else config.epochs * per_epoch
    while left > 0:
        for index in torch.split(torch.randperm(count), config.batch_size)[:left]:
            yield index
            left -= 1


class SGD:
    """`torch.optim.SGD` for one flat vector, to the last bit.

    Ours because the first step of any optimiser in `torch.optim` imports the compiler, which
    takes longer than a small federation trains.
    """

    def __init__(self, vector: nn.Parameter, config: TrainConfig) -> None:
        self._vector = vector
        self._config = config
        self._velocity: Tensor | None = None

    @torch.no_grad()
    def step(self) -> None:
        """Apply the gradient, with weight decay and heavy-ball momentum."""
        gradient, config = self._vector.grad, self._config
        assert gradient is not None
        if config.weight_decay:
            gradient = gradient.add(self._vector, alpha=config.weight_decay)
        if config.momentum:
            if self._velocity is None:
                self._velocity = gradient.clone()
            else:
                self._velocity.mul_(config.momentum).add_(gradient)
            gradient = self._velocity
        self._vector.add_(gradient, alpha=-config.lr)


def _optimizer(model: FlatModel, config: TrainConfig) -> SGD | torch.optim.Optimizer:
    if config.optimizer is Optimizer.sgd:
        return SGD(model.vector, config)
    kind = torch.optim.Adam if config.optimizer is Optimizer.adam else torch.optim.AdamW
    return kind([model.vector], config.lr, weight_decay=config.weight_decay)


def _clip(gradient: Tensor, max_norm: float) -> None:
    norm = gradient.norm()
    gradient.mul_((max_norm / (norm + 1e-6)).clamp_max(1.0))
