"""Local training of one client in one round (McMahan et al. 2017, Algorithm 1, ClientUpdate)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from conf.schema import Optimizer, TrainConfig
from task.base import Examples
from task.batches import batches, seeded
from task.chain import Chain, chain_of
from task.flat import FlatModel
from task.kernels import stepping
from task.objectives import Objective

Memory = dict[str, Tensor]
"""What an optimiser remembers from step to step, by name: momentum, or Adam's moments."""
Penalty = Callable[[Tensor], Tensor]
"""What is added to a batch's loss after the model saw it, from the positions of its rows."""


@dataclass(frozen=True)
class Trained:
    """What local training did.

    Attributes
    ----------
    loss : float
        Mean over the batches.
    steps : int
        How many batches.
    memory : dict of str to Tensor
        What the optimiser remembers.
    mechanism : object
        What noised every step, if anything did; set by who did it.
    """

    loss: float
    steps: int
    memory: Memory = field(default_factory=dict)
    mechanism: object = None


def train(
    model: FlatModel,
    examples: Examples,
    objective: Objective,
    config: TrainConfig,
    *,
    seed: int,
    proximal_mu: float = 0.0,
    memory: Memory | None = None,
    anchor: Tensor | None = None,
    drift: Tensor | None = None,
    penalty: Penalty | None = None,
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
    memory : dict of str to Tensor, or None
        What the optimiser remembered at the end of an earlier training; changed in place.
    anchor : Tensor, shape (p,), or None
        What the proximal term draws to; None: what the model holds at the start.
    drift : Tensor, shape (p,), or None
        Added to each gradient: the gradient of a linear term of the loss.
    penalty : callable or None
        A further term of each batch's loss; the loss reported is without it.
    """
    start = model.vector.detach().clone() if proximal_mu and anchor is None else anchor
    device = model.vector.device
    total, steps = torch.zeros((), dtype=torch.float64, device=device), 0
    model.module.train()
    shaped = proximal_mu != 0 or config.max_grad_norm is not None or drift is not None
    plain = not shaped and penalty is None
    chain = chain_of(model.module, examples.x) if penalty is None else None
    with seeded(seed, device), optimizing(model, config, memory or {}, plain, chain) as optimizer:
        rate = config.lr if isinstance(optimizer, _Fused) else None
        for index in batches(len(examples), config):
            rows = index.to(device)
            batch = Examples(examples.x.index_select(0, rows), examples.y.index_select(0, rows))
            optimizer.zero_grad()
            extra = None if penalty is None else partial(penalty, rows)
            total += _differentiate(chain or model.module, batch, objective, rate, extra)
            if shaped:
                shape_gradient(
                    model.gradient, model.vector.detach(), start, config, proximal_mu, drift=drift
                )
            optimizer.step()
            steps += 1
    return Trained(loss=float(total) / max(steps, 1), steps=steps, memory=optimizer.memory())


def _differentiate(
    network: Chain | nn.Module,
    batch: Examples,
    objective: Objective,
    rate: float | None,
    extra: Callable[[], Tensor] | None,
) -> Tensor:
    """Add to the parameters' gradients, or step, where `rate` says so; return the mean loss.

    `extra` is a further term of the loss, known after the forward pass.
    """
    if isinstance(network, Chain):
        losses, derivative = objective.gradient(network.forward(batch.x), batch.y)
        network.backward(derivative.div_(len(losses)), rate)
        return losses.mean()
    loss = objective.loss(network(batch.x), batch.y).mean()
    whole = loss if extra is None else loss + extra()
    whole.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def shape_gradient(
    gradient: Tensor,
    values: Tensor,
    start: Tensor | None,
    config: TrainConfig,
    mu: float,
    *,
    drift: Tensor | None = None,
) -> None:
    """Add the proximal term to a gradient, clip it, and add the linear term, in place.

    Parameters
    ----------
    gradient, values : Tensor, shape (p,) or (clients, p)
        Of one client, or of several.
    start : Tensor, shape (p,), or None
        The global model, if `mu` is not zero.
    config : TrainConfig
        With the norm to clip to, each client on its own.
    mu : float
        Weight of the proximal term.
    drift : Tensor, shape (p,), or None
        What is added; not clipped, so that what the clients' drifts cancel stays cancelled.
    """
    if start is not None:
        gradient.add_(values - start, alpha=mu)
    if config.max_grad_norm is not None:
        norm = gradient.norm(dim=-1, keepdim=True)
        gradient.mul_((config.max_grad_norm / (norm + 1e-6)).clamp_max(1.0))
    if drift is not None:
        gradient.add_(drift)


class SGD:
    """`torch.optim.SGD` for one flat vector, to the last bit.

    Ours because the first step of any optimiser in `torch.optim` imports the compiler, which
    takes longer than a small federation trains.
    """

    def __init__(self, config: TrainConfig, velocity: Tensor | None = None) -> None:
        self._config = config
        self.velocity = velocity

    @torch.no_grad()
    def step(self, values: Tensor, gradient: Tensor) -> None:
        """Change `values` by the gradient, with weight decay and heavy-ball momentum.

        Of several clients' values, shape (clients, p), later steps may take the first ones only.
        """
        config = self._config
        if config.weight_decay:
            gradient = gradient.add(values, alpha=config.weight_decay)
        if config.momentum:
            if self.velocity is None:
                self.velocity = gradient.clone()
            else:
                velocity = self.velocity[: len(gradient)]
                velocity.mul_(config.momentum).add_(gradient)
            gradient = self.velocity[: len(gradient)]
        values.add_(gradient, alpha=-config.lr)


class _Fused:
    """Plain SGD that backward passes take the largest part of (`task.kernels.stepping`)."""

    def __init__(self, rest: list[nn.Parameter], config: TrainConfig) -> None:
        self._values = [parameter.data for parameter in rest]
        self._gradients = [cast(Tensor, parameter.grad) for parameter in rest]
        self._lr = config.lr

    def zero_grad(self) -> None:
        if self._gradients:
            torch._foreach_zero_(self._gradients)

    def step(self) -> None:
        if self._gradients:
            torch._foreach_add_(self._values, self._gradients, alpha=-self._lr)

    def memory(self) -> Memory:
        return {}


class _Flat:
    """Our SGD, on a flat model."""

    def __init__(self, model: FlatModel, config: TrainConfig, memory: Memory) -> None:
        self._model = model
        self._sgd = SGD(config, memory.get("velocity"))
        self.zero_grad = model.zero_grad

    def step(self) -> None:
        self._sgd.step(self._model.vector, self._model.gradient)

    def memory(self) -> Memory:
        velocity = self._sgd.velocity
        return {} if velocity is None else {"velocity": velocity}


class _Torch:
    """An optimiser of torch's, on a flat model."""

    def __init__(self, model: FlatModel, config: TrainConfig, memory: Memory) -> None:
        kind = torch.optim.Adam if config.optimizer is Optimizer.adam else torch.optim.AdamW
        self._optimizer = kind([model.vector], config.lr, weight_decay=config.weight_decay)
        self._state: Memory = self._optimizer.state[model.vector]
        self._state.update(memory)
        self.zero_grad = model.zero_grad

    def step(self) -> None:
        self._optimizer.step()

    def memory(self) -> Memory:
        return self._state


@contextmanager
def optimizing(
    model: FlatModel,
    config: TrainConfig,
    memory: Memory,
    plain: bool,
    chain: Chain | None = None,
) -> Iterator[_Fused | _Flat | _Torch]:
    """Yield the optimiser; `plain` says that gradients are used as they come, `chain` by what."""
    # Numbers stay on the CPU, where torch's optimisers want to have them.
    memory = {key: v.to(model.vector.device) if v.dim() else v for key, v in memory.items()}
    if config.optimizer is not Optimizer.sgd:
        yield _Torch(model, config, memory)
    elif not plain or config.momentum or config.weight_decay:
        yield _Flat(model, config, memory)
    elif chain is not None:
        yield _Fused([], config)
    else:
        with stepping(model.module, config.lr) as rest:
            whole = sum(p.numel() for p in rest) == len(model.vector)
            yield _Flat(model, config, memory) if whole else _Fused(rest, config)
