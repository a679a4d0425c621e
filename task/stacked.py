"""Local training of several clients at once: their models are rows of one matrix.

Small models spend their time between operations, not in them; one operation for many clients
(`torch.func.vmap`) spends it once. Each client gets the batches that it would get alone, so the
results are those of `task.training.train` up to rounding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from conf.schema import TrainConfig
from task.base import Examples
from task.batches import epochs
from task.objectives import Objective
from task.stacking import dense_layers
from task.training import SGD, Trained, shape_gradient

_VALUES = 1 << 24
"""Values of inputs that are made ready at once: 64 MB."""


class _Plans:
    """The clients' batches, those with the most steps first.

    All batches are as long as ``train.batch_size``, whoever else is in the stack, so that a
    client's result does not depend on the others; rows that fill them up have no share.

    Attributes
    ----------
    order : list of int
        The clients' positions.
    steps : list of int
        How many batches each has, in that order.
    rows : Tensor, shape (clients, steps, batch)
        Positions of the rows.
    share : Tensor, shape (clients, steps, batch)
        What each row counts in its batch's loss.
    """

    def __init__(
        self,
        counts: Sequence[int],
        config: TrainConfig,
        seeds: Sequence[int],
        device: torch.device,
    ) -> None:
        steps = [config.steps_on(count) for count in counts]
        self.order = sorted(range(len(counts)), key=lambda i: -steps[i])
        self.steps = [steps[i] for i in self.order]
        size = config.batch_size
        rows = torch.full((len(counts), max(steps) * size), -1)
        generator = torch.Generator()
        for i, line in zip(self.order, rows, strict=True):
            generator.manual_seed(seeds[i])
            at = 0
            for order, used in epochs(counts[i], config, generator):
                chosen = order[: used * size]
                line[at : at + len(chosen)] = chosen
                at += used * size
        rows = rows.view(len(counts), -1, size)
        counted = (rows >= 0).float()
        self.rows = rows.clamp_min_(0).to(device)
        self.share = (counted / counted.sum(2, keepdim=True).clamp_min_(1.0)).to(device)


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
    plans = _Plans([len(client) for client in clients], config, seeds, start.device)
    data = [clients[i] for i in plans.order]
    values = start.repeat(len(clients), 1)
    losses = torch.zeros(len(clients), dtype=torch.float64, device=start.device)
    kind = _Dense if dense_layers(module) else _Vmapped
    stepper = kind(module, objective, config, start, proximal_mu)
    module.train()
    done = 0
    for until, _ in groupby(sorted(plans.steps)):
        # Those still at work are the first rows.
        active = sum(count >= until for count in plans.steps)
        for window in _windows(data[:active], plans, range(done, until)):
            losses[:active] += stepper.train(values[:active], *window)
        done = until
    found = zip(plans.order, losses.tolist(), plans.steps, strict=True)
    trained = {i: Trained(loss / count, count) for i, loss, count in found}
    everyone = range(len(clients))
    if plans.order != [*everyone]:
        values = values[torch.tensor(plans.order).argsort()]
    return values, [trained[i] for i in everyone]


def _windows(
    clients: Sequence[Examples], plans: _Plans, steps: range
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield some steps' inputs, targets, and each row's share of the loss, for all clients."""
    ahead = max(1, _VALUES // (plans.rows[: len(clients), 0].numel() * clients[0].x[0].numel()))
    for first in range(steps.start, steps.stop, ahead):
        window = slice(first, min(first + ahead, steps.stop))
        rows, share = (part[: len(clients), window] for part in (plans.rows, plans.share))
        x, y = (_gather([getattr(c, name) for c in clients], rows) for name in "xy")
        yield x, y, share


def _gather(sources: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Return the rows of some steps, shape (clients, steps, batch, ...)."""
    out = sources[0].new_empty((*rows.shape, *sources[0].shape[1:]))
    for place, source, chosen in zip(out.flatten(1, 2), sources, rows.flatten(1), strict=True):
        torch.index_select(source, 0, chosen, out=place)
    return out


class _Stepper(ABC):
    """Steps of several clients' models, each with the gradient of its own loss.

    Parameters
    ----------
    module : nn.Module
        The model.
    objective, config, mu
        As for `train_stacked`.
    start : Tensor, shape (p,)
        The global model.
    """

    def __init__(
        self, module: nn.Module, objective: Objective, config: TrainConfig, start: Tensor, mu: float
    ) -> None:
        self._module = module
        self._objective = objective
        self._config = config
        self._start = start if mu else None
        self._mu = mu
        self._sgd = SGD(config)

    @abstractmethod
    def train(self, values: Tensor, x: Tensor, y: Tensor, share: Tensor) -> Tensor:
        """Take a step of each client's model for each of its batches.

        Parameters
        ----------
        values : Tensor, shape (clients, p)
            The models; changed in place.
        x, y, share : Tensor, shape (clients, steps, batch, ...)
            Inputs, targets, and each row's share of its batch's loss.

        Returns
        -------
        Tensor, shape (clients,)
            Each client's sum of its batches' losses.
        """

    def _step(self, values: Tensor, gradient: Tensor) -> None:
        shape_gradient(gradient, values, self._start, self._config, self._mu)
        self._sgd.step(values, gradient)


class _Vmapped(_Stepper):
    """Gradients of any module, by automatic differentiation of all clients at once."""

    def train(self, values: Tensor, x: Tensor, y: Tensor, share: Tensor) -> Tensor:
        total = share.new_zeros(len(values))
        for batch in zip(x.unbind(1), y.unbind(1), share.unbind(1), strict=True):
            losses, gradient = self._gradient(values, *batch)
            total += losses
            self._step(values, gradient)
        return total

    def _gradient(
        self, values: Tensor, x: Tensor, y: Tensor, share: Tensor
    ) -> tuple[Tensor, Tensor]:
        # Imported when needed: the first use imports the compiler.
        from torch.func import vmap

        leaf = values.detach().requires_grad_()
        shapes = {name: p.shape for name, p in self._module.named_parameters()}
        parts = torch.split(leaf, [shape.numel() for shape in shapes.values()], dim=1)
        parameters = {
            name: part.view(len(values), *shape)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }
        with torch.enable_grad():
            each = vmap(self._each)(parameters, x, y)
            losses = (each * share).sum(1)
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), gradient

    def _each(self, parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        from torch.func import functional_call

        return self._objective.loss(functional_call(self._module, parameters, (x,)), y)


_Layers = list[tuple[Tensor, Tensor]]
"""Weights, shape (clients, outputs, inputs), and biases, shape (clients, 1, outputs)."""


class _Dense(_Stepper):
    """Gradients of dense layers with ReLU between them, by the chain rule as it stands.

    Without automatic differentiation a small step takes a third of the time. Plain SGD adds its
    gradients to the weights as it multiplies them.
    """

    @torch.no_grad()
    def train(self, values: Tensor, x: Tensor, y: Tensor, share: Tensor) -> Tensor:
        config = self._config
        shaped = self._mu or config.max_grad_norm is not None
        plain = not (shaped or config.momentum or config.weight_decay)
        gradient = values if plain else torch.empty_like(values)
        weights, targets = self._layers(values), self._layers(gradient)
        kept, scale = (1.0, -config.lr) if plain else (0.0, 1.0)
        derive = self._objective.weighted(y, share)
        ones = share.new_ones(()).expand(len(values), 1, share.shape[2])
        total = share.new_zeros(len(values))
        for step, batch in enumerate(x.flatten(3).unbind(1)):
            inputs = self._forward(weights, batch)
            losses, grad = derive(step, inputs.pop())
            total += losses
            for i in reversed(range(len(weights))):
                weight, bias = targets[i]
                ahead = torch.bmm(grad, weights[i][0]).mul_(inputs[i] > 0) if i else grad
                weight.baddbmm_(grad.mT, inputs[i], beta=kept, alpha=scale)
                bias.baddbmm_(ones, grad, beta=kept, alpha=scale)
                grad = ahead
            if not plain:
                self._step(values, gradient)
        return total

    def _forward(self, weights: _Layers, x: Tensor) -> list[Tensor]:
        """Return the input of each layer, and the last one's output."""
        outputs = [x]
        for i, (weight, bias) in enumerate(weights):
            if i:
                outputs[-1].relu_()
            outputs.append(torch.baddbmm(bias, outputs[-1], weight.mT))
        return outputs

    def _layers(self, values: Tensor) -> _Layers:
        layers, start = [], 0
        for layer in dense_layers(self._module):
            middle = start + layer.weight.numel()
            weight = values[:, start:middle].view(-1, *layer.weight.shape)
            start = middle + layer.out_features
            layers.append((weight, values[:, middle:start].unsqueeze(1)))
        return layers
