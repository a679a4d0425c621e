"""Local training of several clients at once: their models are rows of one matrix.

Small models spend their time between operations, not in them; one operation for many clients
(`torch.func.vmap`) spends it once. Each client gets the batches that it would get alone, so the
results are those of `task.training.train` up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
from torch import Tensor, nn

from conf.schema import Optimizer, TrainConfig
from task.base import Examples
from task.device import CPU
from task.objectives import Objective
from task.training import SGD, Trained, epochs, seeded, shape_gradient

MOST = 8
"""Clients in one stack at most: more are hardly faster, and harder to spread over workers."""
MOST_ON_GPU = 64
"""The same where operations of so many cost hardly more than those of one."""
_EVEN = 4
"""Stacks come in multiples of this, so that two or four workers have as many each."""
_VALUES = 1 << 24
"""Parameters of a stack, and values of inputs made ready at once: 64 MB of each."""
_VALUES_ON_GPU = 1 << 28


def obstacle(module: nn.Module, config: TrainConfig) -> str | None:
    """Return why clients cannot be stacked with this model and optimiser, or None if they can."""
    if config.optimizer is not Optimizer.sgd:
        return "it needs train.optimizer=sgd"
    if config.keep_optimizer:
        return "each client needs its own train.keep_optimizer"
    for layer in module.modules():
        if isinstance(layer, nn.RNNBase):
            return "recurrent layers cannot be stacked"
        if isinstance(layer, nn.Dropout) and layer.p > 0:
            return "each client needs its own dropout"
    if next(module.buffers(), None) is not None:
        return "layers with buffers cannot be stacked"
    return None


def dense_layers(module: nn.Module) -> list[nn.Linear]:
    """Return the layers of a chain of dense layers with ReLU between; none if it is no such."""
    layers = list(module) if isinstance(module, nn.Sequential) else [module]
    if layers and isinstance(layers[0], nn.Flatten):
        del layers[0]
    linear, between = layers[::2], layers[1::2]
    chain = [layer for layer in linear if isinstance(layer, nn.Linear) and layer.bias is not None]
    right = len(layers) % 2 == 1 and all(isinstance(layer, nn.ReLU) for layer in between)
    return chain if right and len(chain) == len(linear) else []


def stack_size(module: nn.Module, device: torch.device = CPU) -> int:
    """Return how many clients fit into a stack with this model."""
    most, room = (MOST, _VALUES) if device == CPU else (MOST_ON_GPU, _VALUES_ON_GPU)
    parameters = sum(p.numel() for p in module.parameters())
    return max(1, min(most, room // max(parameters, 1)))


def stacks(rows: Mapping[str, int], size: int) -> list[list[str]]:
    """Group clients with about as many rows each.

    Parameters
    ----------
    rows : mapping
        Training rows of each client.
    size : int
        Clients in a stack at most.
    """
    ordered = sorted(rows, key=lambda client: (-rows[client], client))
    if size <= 1 or not ordered:
        return [[client] for client in ordered]
    count = -(-len(ordered) // size)
    count = min(-(-count // _EVEN) * _EVEN, len(ordered))
    ends = [len(ordered) * i // count for i in range(count + 1)]
    return [ordered[start:end] for start, end in pairwise(ends)]


@dataclass(frozen=True)
class _Plan:
    """One client's batches: row positions, and each row's share of the loss.

    All batches are as long as ``train.batch_size``, whoever else is in the stack, so that a
    client's result does not depend on the others; rows that fill them up have no share.
    """

    rows: Tensor
    share: Tensor

    @classmethod
    def of(cls, count: int, config: TrainConfig, seed: int, device: torch.device) -> _Plan:
        size = config.batch_size
        filling = torch.full((-count % size,), -1)
        with seeded(seed):
            parts = [
                torch.cat([order, filling]).view(-1, size)[:used]
                for order, used in epochs(count, config)
            ]
        rows = torch.cat(parts)
        counted = (rows >= 0).float()
        share = counted / counted.sum(1, keepdim=True)
        return cls(rows.clamp_min(0).to(device), share.to(device))


def train_stacked(
    module: nn.Module,
    start: Tensor,
    clients: Sequence[Examples],
    objective: Objective,
    config: TrainConfig,
    *,
    seeds: Sequence[int],
    proximal_mu: float = 0.0,
) -> tuple[Tensor, list[Trained]]:
    """Train several clients from the same model.

    Parameters
    ----------
    module : nn.Module
        The model; its own values do not matter.
    start : Tensor, shape (p,)
        The global model.
    clients : sequence of Examples
        Training rows of each client; at least one row each.
    objective, config, proximal_mu
        As for `task.training.train`.
    seeds : sequence of int
        One per client.

    Returns
    -------
    Tensor, shape (clients, p), list of Trained
        The clients' models and what training did, in the order of `clients`.
    """
    device = start.device
    plans = [_Plan.of(len(c), config, s, device) for c, s in zip(clients, seeds, strict=True)]
    # Those with the most steps first, so that the ones still at work are the first rows.
    order = sorted(range(len(clients)), key=lambda i: -len(plans[i].rows))
    values = start.repeat(len(clients), 1)
    losses = torch.zeros(len(clients), dtype=torch.float64, device=device)
    dense = dense_layers(module)
    sgd = SGD(config)
    loss_of = _Dense(dense, objective) if dense else _Vmapped(module, objective)
    module.train()
    steps = [len(plans[i].rows) for i in order]
    done = 0
    for until, _ in groupby(sorted(steps)):
        active = order[: sum(count >= until for count in steps)]
        rows = values[: len(active)]
        chosen = ([clients[i] for i in active], [plans[i] for i in active])
        for batch in _side_by_side(*chosen, range(done, until)):
            found, gradient = loss_of(rows, *batch)
            losses[: len(active)] += found
            shape_gradient(gradient, rows, start if proximal_mu else None, config, proximal_mu)
            sgd.step(rows, gradient)
        done = until
    back = torch.tensor(order).argsort()
    means = [loss / count for loss, count in zip(losses.tolist(), steps, strict=True)]
    trained = [Trained(means[i], steps[i]) for i in back.tolist()]
    return values[back], trained


def _side_by_side(
    clients: Sequence[Examples], plans: Sequence[_Plan], steps: range
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield inputs, targets, and each row's share of the loss, step by step, for all clients."""
    values = len(clients) * plans[0].rows.shape[1] * clients[0].x[0].numel()
    ahead = max(1, _VALUES // values)
    for first in range(steps.start, steps.stop, ahead):
        window = range(first, min(first + ahead, steps.stop))
        x, y = (_gather([getattr(c, name) for c in clients], plans, window) for name in "xy")
        share = torch.stack([plan.share[window.start : window.stop] for plan in plans])
        for step in range(len(window)):
            yield x[:, step], y[:, step], share[:, step]


def _gather(sources: Sequence[Tensor], plans: Sequence[_Plan], window: range) -> Tensor:
    """Return the rows of some steps, shape (clients, steps, batch, ...)."""
    shape = (len(window), plans[0].rows.shape[1])
    out = sources[0].new_empty((len(sources), *shape, *sources[0].shape[1:]))
    for place, source, plan in zip(out.flatten(1, 2), sources, plans, strict=True):
        rows = plan.rows[window.start : window.stop].reshape(-1)
        torch.index_select(source, 0, rows, out=place)
    return out


class _Vmapped:
    """Losses and gradients of any module, by automatic differentiation of all clients at once."""

    def __init__(self, module: nn.Module, objective: Objective) -> None:
        self._module = module
        self._objective = objective
        self._shapes = {name: p.shape for name, p in module.named_parameters()}
        self._sizes = [shape.numel() for shape in self._shapes.values()]

    def __call__(
        self, values: Tensor, x: Tensor, y: Tensor, share: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return each client's mean loss at its own row of `values`, and that row's gradient."""
        # Imported when needed: the first use imports the compiler.
        from torch.func import vmap

        leaf = values.detach().requires_grad_()
        parts = torch.split(leaf, self._sizes, dim=1)
        parameters = {
            name: part.view(len(values), *shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
        with torch.enable_grad():
            each = vmap(self._each)(parameters, x, y)
            losses = (each * share).sum(1)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), gradient

    def _each(self, parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        from torch.func import functional_call

        return self._objective.loss(functional_call(self._module, parameters, (x,)), y)


class _Dense:
    """Losses and gradients of dense layers with ReLU between them, by the chain rule as it stands.

    Without automatic differentiation a small step takes a third of the time.
    """

    def __init__(self, layers: Sequence[nn.Linear], objective: Objective) -> None:
        self._objective = objective
        self._shapes = [(layer.out_features, layer.in_features) for layer in layers]
        self._gradient = torch.empty(0)

    @torch.no_grad()
    def __call__(
        self, values: Tensor, x: Tensor, y: Tensor, share: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return each client's mean loss at its own row of `values`, and that row's gradient."""
        if self._gradient.shape != values.shape:
            self._gradient = torch.empty_like(values)
        weights, gradients = self._layers(values), self._layers(self._gradient)
        inputs = [x.flatten(2)]
        for weight, bias in weights:
            output = torch.bmm(inputs[-1], weight.mT).add_(bias.unsqueeze(1))
            if len(inputs) < len(weights):
                inputs.append(output.relu_())
        losses, grad = self._objective.gradient(output.flatten(0, 1), y.flatten(0, 1))
        losses, grad = losses.view(y.shape[:2]), grad.view(output.shape)
        grad *= share.unsqueeze(2)
        for i in reversed(range(len(weights))):
            weight_grad, bias_grad = gradients[i]
            torch.bmm(grad.mT, inputs[i], out=weight_grad)
            torch.sum(grad, 1, out=bias_grad)
            if i:
                grad = torch.bmm(grad, weights[i][0]).mul_(inputs[i] > 0)
        return (losses * share).sum(1), self._gradient

    def _layers(self, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        layers, start = [], 0
        for outputs, inputs in self._shapes:
            middle = start + outputs * inputs
            weight = values[:, start:middle].view(-1, outputs, inputs)
            start = middle + outputs
            layers.append((weight, values[:, middle:start]))
        return layers
