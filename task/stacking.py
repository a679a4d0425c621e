"""Which clients train at once (`task.stacked`): with which models, and in which groups."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from conf.schema import Optimizer, TrainConfig
from task.device import CPU
from task.kernels import hooked

MOST = 16
"""Clients in one stack at most: more are hardly faster, and harder to spread over workers."""
MOST_ON_GPU = 64
"""The same where operations of so many cost hardly more than those of one."""
_EVEN = 4
"""Stacks come in multiples of this, so that two or four workers have as many each."""
_VALUES = 1 << 24
"""Parameters of a stack: 64 MB of them."""
_VALUES_ON_GPU = 1 << 28


def obstacle(module: nn.Module, config: TrainConfig) -> str | None:
    """Return why clients cannot be stacked with this model and optimiser, or None if they can."""
    if config.optimizer is not Optimizer.sgd:
        return "it needs train.optimizer=sgd"
    if config.keep_optimizer:
        return "each client needs its own train.keep_optimizer"
    for layer in module.modules():
        if reason := _layer_obstacle(layer):
            return reason
    if _shares_parameters(module):
        return "layers that share parameters cannot be stacked"
    if next(module.buffers(), None) is not None:
        return "layers with buffers cannot be stacked"
    return None


def _layer_obstacle(layer: nn.Module) -> str | None:
    if hooked(layer):
        return "hooks see one client at a time"
    if is_parametrized(layer):
        return "layers with computed weights cannot be stacked"
    if isinstance(layer, nn.RNNBase):
        return "recurrent layers cannot be stacked"
    if isinstance(layer, nn.Dropout) and layer.p > 0:
        return "each client needs its own dropout"
    return None


def dense_layers(module: nn.Module) -> list[nn.Linear]:
    """Return the layers of a chain of dense layers with ReLU between; none if it is no such.

    Layers of exactly torch's types, each once: a subclass may compute something else.
    """
    layers = list(module) if type(module) is nn.Sequential else [module]
    if layers and type(layers[0]) is nn.Flatten:
        del layers[0]
    linear, between = layers[::2], layers[1::2]
    chain = [layer for layer in linear if type(layer) is nn.Linear and layer.bias is not None]
    right = len(layers) % 2 == 1 and all(type(layer) is nn.ReLU for layer in between)
    plain = not any(hooked(layer) for layer in module.modules())
    once = len({id(layer.weight) for layer in chain}) == len(linear)
    return chain if right and plain and once else []


def _shares_parameters(module: nn.Module) -> bool:
    places = [id(p) for _, p in module.named_parameters(remove_duplicate=False)]
    return len(set(places)) < len(places)


def stack_size(module: nn.Module, device: torch.device = CPU) -> int:
    """Return how many clients fit into a stack with this model."""
    most, room = (MOST, _VALUES) if device == CPU else (MOST_ON_GPU, _VALUES_ON_GPU)
    parameters = sum(p.numel() for p in module.parameters())
    return max(1, min(most, room // max(parameters, 1)))


def stacks(rows: Mapping[str, int], size: int) -> list[list[str]]:
    """Group clients with about as many rows each, so that groups have about as many, too.

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
    wanted = math.ceil(len(ordered) / (size * _EVEN)) * _EVEN
    found: list[list[str]] = []
    start, left = 0, sum(rows.values())
    while start < len(ordered):
        most = ordered[start : start + size]
        goal = left / max(wanted - len(found), math.ceil((len(ordered) - start) / size))
        # The client across whose rows the goal lies belongs to the side with more of them.
        until = accumulate(rows[client] for client in most)
        kept = sum(
            load - rows[client] / 2 <= goal for client, load in zip(most, until, strict=True)
        )
        found.append(most[: max(kept, 1)])
        start += len(found[-1])
        left -= sum(rows[client] for client in found[-1])
    return found
