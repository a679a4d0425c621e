"""Whether the faster layers compute what a model's own compute: tried, before a run relies on it.

`task.kernels`, `task.chain` and `task.stacked` replace torch's layers and its automatic
differentiation. Whether they may is decided by what a module is made of, and then by a witness: on
random rows both train a copy for two steps and evaluate it. If parameters, buffers, loss and
outputs agree, the faster one is used; else the module stays as its author wrote it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from conf.schema import TrainConfig
from task.base import Examples, ModelSpec
from task.batches import seeded
from task.device import CPU
from task.flat import FlatModel
from task.kernels import accelerate
from task.objectives import Binary, MultiClass, NextToken, Objective, Regression
from task.stacked import train_stacked
from task.training import train

_BATCH = 4
"""Rows of the first batch at most; the second one is of another length."""
_STEPS = 2
_TOLERANCE = 1e-9
"""Of values, relative to the largest of their kind: in double precision rounding is below that."""
_SINGLE_TOLERANCE = 1e-5
"""The same where clients are stacked, in single precision."""


@dataclass(frozen=True)
class Network:
    """A module, ready to be trained and evaluated.

    Attributes
    ----------
    module : nn.Module
        With the faster layers, or as it was built.
    reason : str
        Why it has none of the faster layers; empty if it has them.
    """

    module: nn.Module
    reason: str = ""


def choose_network(
    build: Callable[[], nn.Module],
    spec: ModelSpec,
    objective: Objective,
    config: TrainConfig,
    device: torch.device = CPU,
) -> Network:
    """Build a model with the faster layers, if they train and evaluate as its own do.

    The same on every machine: rows, targets and dropout of the trial are fixed. A model that
    changes its inputs in place is handed copies of them, wherever it is used.

    Parameters
    ----------
    build : callable
        Returns a new module, with the same values each time.
    spec : ModelSpec
        Shape of the inputs.
    objective : Objective
        What is learned.
    config : TrainConfig
        How.
    device : torch.device
        Where; the faster layers are for the CPU.
    """
    module = build()
    if _changes_input(module, spec):
        module.register_forward_pre_hook(_copy_inputs)
        return Network(module.to(device), "it changes its inputs in place, and is given copies")
    if device != CPU:
        return Network(module.to(device), "the faster layers are for the CPU")
    if reason := _disagreement(module, spec, objective, config):
        return Network(module, reason)
    return Network(accelerate(module))


def stacking_disagrees(
    module: nn.Module, spec: ModelSpec, objective: Objective, config: TrainConfig
) -> str:
    """Return why clients must not be trained at once (`task.stacked`); empty if they may be."""
    clients = [_random_rows(spec, objective, config, seed) for seed in (1, 2)]
    told = replace(config, steps=_STEPS, batch_size=_batch_size(config))
    with seeded(0):
        try:
            start = FlatModel(copy.deepcopy(module)).vector.detach().clone()
            alone = [_values_alone(module, rows, objective, told) for rows in clients]
        except Exception:
            return "its layers do not take random rows"
        try:
            rows, _ = train_stacked(
                copy.deepcopy(module), start, clients, objective, told, seeds=(0, 0)
            )
        except Exception:
            return "its layers cannot be stacked"
    agree = _agree(list(rows), alone, _SINGLE_TOLERANCE)
    return "" if agree else "its layers train otherwise in a stack"


def _disagreement(
    module: nn.Module, spec: ModelSpec, objective: Objective, config: TrainConfig
) -> str:
    """Return why the faster layers must not stand for a module's own; empty if they may."""
    rows = _random_rows(spec, objective, config, seed=1)
    rows = Examples(_doubled(rows.x), _doubled(rows.y))
    told = replace(config, steps=_STEPS, batch_size=_batch_size(config))
    plain, fast = (_without_dropout(copy.deepcopy(module).double()) for _ in range(2))
    with seeded(0):
        try:
            expected = _trial(plain, rows, objective, told)
        except Exception:
            return "it takes no random rows in double precision"
        try:
            found = _trial(_without_dropout(accelerate(fast)), rows, objective, told)
        except Exception:
            return "the faster layers do not fit it"
    return "" if _agree(found, expected, _TOLERANCE) else "the faster layers train another model"


def _trial(
    module: nn.Module, rows: Examples, objective: Objective, config: TrainConfig
) -> list[Tensor]:
    """Return values, loss and outputs after two steps; the rows must stay as they are."""
    model, kept = FlatModel(module), rows.x.clone()
    trained = train(model, rows, objective, config, seed=0)
    module.eval()
    with torch.no_grad():
        outputs = module(rows.x)
    assert torch.equal(rows.x, kept)
    return [*(v.double() for v in model.state().values()), torch.tensor(trained.loss), outputs]


def _values_alone(
    module: nn.Module, rows: Examples, objective: Objective, config: TrainConfig
) -> Tensor:
    model = FlatModel(copy.deepcopy(module))
    train(model, rows, objective, config, seed=0)
    return model.vector.detach()


def _agree(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> bool:
    return all(
        mine.shape == true.shape
        and torch.allclose(
            mine, true.to(mine.dtype), rtol=0.0, equal_nan=True,
            atol=tolerance * max(1.0, float(true.abs().nan_to_num().max()) if true.numel() else 0),
        )
        for mine, true in zip(found, expected, strict=True)
    )  # fmt: skip


def _changes_input(module: nn.Module, spec: ModelSpec) -> bool:
    """Tell whether a forward pass writes into its input, in training or in evaluation."""
    trial = copy.deepcopy(module)
    x = _random_inputs(spec, 2 * _BATCH, torch.Generator().manual_seed(0))
    for mode in (True, False):
        given = x.clone()
        with seeded(0), torch.no_grad():
            try:
                trial.train(mode)(given)
            except Exception:
                # Whatever it cannot do is told when it is trained.
                return False
        if not torch.equal(given, x):
            return True
    return False


def _copy_inputs(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    del module
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in given)


def _without_dropout(module: nn.Module) -> nn.Module:
    """Let dropout drop nothing: torch's and ours draw other values from one seed."""
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return module


def _batch_size(config: TrainConfig) -> int:
    return min(config.batch_size, _BATCH)


def _random_rows(spec: ModelSpec, objective: Objective, config: TrainConfig, seed: int) -> Examples:
    """Return rows for two batches of different lengths."""
    size = _batch_size(config)
    count = size + max(2, size // 2)
    generator = torch.Generator().manual_seed(seed)
    x = _random_inputs(spec, count, generator)
    return Examples(x, _random_targets(spec, objective, count, generator))


def _random_inputs(spec: ModelSpec, count: int, generator: torch.Generator) -> Tensor:
    shape = (count, *spec.input_shape)
    if spec.vocabulary:
        return torch.randint(0, spec.vocabulary, shape, generator=generator)
    return torch.randn(shape, generator=generator)


def _random_targets(
    spec: ModelSpec, objective: Objective, count: int, generator: torch.Generator
) -> Tensor:
    if isinstance(objective, NextToken):
        shape = (count, *spec.input_shape)
        return torch.randint(0, spec.outputs, shape, generator=generator)
    if isinstance(objective, MultiClass):
        return torch.randint(0, objective.classes, (count,), generator=generator)
    if isinstance(objective, Binary):
        return torch.randint(0, 2, (count,), generator=generator).float()
    if isinstance(objective, Regression):
        return torch.randn(count, generator=generator)
    # An objective of its own kind: its targets are anybody's guess, and a wrong one ends the trial.
    return torch.randint(0, 2, (count,), generator=generator)


def _doubled(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values
