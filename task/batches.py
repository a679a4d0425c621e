"""The order in which a client's rows come, fixed by a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from conf.schema import TrainConfig
from task.device import CPU


@contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Seed torch's random numbers inside, on the CPU and on `device`, and restore them afterwards.

    The order of rows comes from the CPU's, and so is the same on any device. `torch.manual_seed`
    also takes a stack trace per kind of accelerator that is not there, which lasts longer than a
    small client trains.
    """
    generators = [torch.default_generator]
    if device != CPU:
        generators.append(torch.cuda.default_generators[device.index])
    states = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def batches(count: int, config: TrainConfig) -> Iterator[Tensor]:
    """Yield the row indices of each batch: reshuffled epochs, cut off after ``train.steps``."""
    for order, used in epochs(count, config):
        yield from torch.split(order, config.batch_size)[:used]


def epochs(
    count: int, config: TrainConfig, generator: torch.Generator | None = None
) -> Iterator[tuple[Tensor, int]]:
    """Yield each epoch's order of the rows, and how many of its batches are used."""
    per_epoch = -(-count // config.batch_size)
    left = config.steps_on(count)
    while left > 0:
        yield torch.randperm(count, generator=generator), min(left, per_epoch)
        left -= per_epoch
