"""Whether clients train one by one or several at once, decided once for a run."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from conf.errors import FedproofError
from conf.schema import Engine, Settings, Vectorize
from task.base import Examples, Task
from task.device import CPU, device_of
from task.flat import FlatModel, build_model
from task.objectives import MultiClass
from task.personalization import clients_half
from task.privacy.policy import mechanism_of
from task.privacy.record_dp import RecordDP
from task.stacked import train_stacked
from task.stacking import dense_layers, obstacle, stack_size
from task.training import train
from task.witness import choose_network, stacking_disagrees

FEWEST = 16
"""Below so many clients in a round stacking is not worth its rounding."""
WORTH_PROBING = 60.0
"""Seconds of training on all workers from which on a probe pays: it imports the compiler."""
MARGIN = 1.2
"""How much faster stacking must be; less could come out otherwise the next time."""
_STEPS = 3


def choose_stack(
    settings: Settings, task: Task[Any], shared: dict[str, Any], rows: Sequence[int]
) -> int:
    """Return how many clients train at once: 1 if each trains alone.

    Parameters
    ----------
    settings : Settings
        With ``federation.vectorize``: off, on, or auto, which takes dense models at once, and
        all on a GPU, measures others where that pays, and leaves small cohorts and deployments
        alone.
    task, shared
        What is learned, and what the clients agreed on.
    rows : sequence of int
        Training rows of all clients.

    Raises
    ------
    FedproofError
        If it is switched on, and cannot be.
    """
    mode = settings.federation.vectorize
    if mode is Vectorize.off:
        return 1
    module = build_model(settings, task.spec(shared))
    reason = obstacle(module, settings.train)
    if isinstance(mechanism_of(settings), RecordDP):
        reason = f"privacy={settings.privacy.name} looks at each example"
    if not clients_half(settings).stackable:
        reason = f"strategy={settings.strategy.name} trains each client its own way"
        if settings.personalization.name != "none":
            reason = f"personalization={settings.personalization.name} has models of clients' own"
    # Of this machine: simulations have their workers here, and SuperNodes are not stacked.
    device = device_of(settings.train.device)
    size = stack_size(module, device)
    spec, objective = task.spec(shared), task.objective(shared)
    if mode is Vectorize.on:
        reason = reason or stacking_disagrees(module, spec, objective, settings.train)
        if reason:
            raise FedproofError(f"federation.vectorize=on does not fit this run: {reason}.")
        return size
    cohort = round(settings.federation.fraction * len(rows))
    remote = settings.federation.engine is Engine.remote
    if reason or remote or cohort < FEWEST or size == 1:
        return 1
    if device != CPU or dense_layers(module) or _measured(settings, task, shared, cohort, rows):
        # Nothing trains in a stack that did not train alike on trial.
        return 1 if stacking_disagrees(module, spec, objective, settings.train) else size
    return 1


def _measured(
    settings: Settings, task: Task[Any], shared: dict[str, Any], cohort: int, rows: Sequence[int]
) -> bool:
    """Return whether stacking is faster, if the run is long enough for the question to pay."""
    spec, objective = task.spec(shared), task.objective(shared)
    if spec.vocabulary:
        return False
    config = replace(settings.train, steps=_STEPS)
    target = torch.int64 if isinstance(objective, MultiClass) else torch.float32
    examples = Examples(
        torch.randn(config.batch_size, *spec.input_shape),
        torch.zeros(config.batch_size, dtype=target),
    )
    module = build_model(settings, spec)
    start = FlatModel(module).vector.detach().clone()
    network = choose_network(lambda: build_model(settings, spec), spec, objective, settings.train)
    model = FlatModel(network.module)
    alone = _fastest(lambda: train(model, examples, objective, config, seed=0))
    steps = settings.train.steps_on(int(statistics.median(rows)))
    workers = settings.federation.workers or os.cpu_count() or 1
    if alone / _STEPS * steps * cohort * settings.rounds / workers < WORTH_PROBING:
        return False
    stack = [examples] * stack_size(module)
    seeds = range(len(stack))
    together = _fastest(lambda: train_stacked(module, start, stack, objective, config, seeds=seeds))
    return together / len(stack) * MARGIN < alone


def _fastest(work: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of three runs, after one that warms up."""
    work()
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
