"""Evaluation of a model on one client's held-out rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conf.errors import FedproofError
from task.base import Examples
from task.bounded import GRID, Bounded
from task.metric_names import GLOBAL
from task.objectives import Metrics, Objective, Statistics
from task.refusals import Refusal

BATCH = 512
_FILLED = 64
"""Rows of a batch whose sums get noise: always so many."""
UNANSWERED = str(Refusal.unanswered)
"""All that a silo says that tells nothing of its held-out rows."""
_LARGEST = 1e100
"""Of sums: their squares, and sums of those, are still numbers."""


@dataclass(frozen=True)
class Evaluated:
    """A client's own metrics, and the sums from which pooled metrics are computed."""

    metrics: Metrics
    statistics: Statistics


def beside(own: Evaluated, shared: Evaluated) -> Evaluated:
    """Return the figures of a client's own model and of the global one in one."""
    return Evaluated(
        own.metrics | {GLOBAL + key: value for key, value in shared.metrics.items()},
        own.statistics | {GLOBAL + key: value for key, value in shared.statistics.items()},
    )


def pooled(objective: Objective, sums: Mapping[str, list[float]]) -> Metrics:
    """Return the metrics of the union of the rows behind `sums`, the global model's beside."""
    shared = {k.removeprefix(GLOBAL): v for k, v in sums.items() if k.startswith(GLOBAL)}
    metrics = objective.pooled({k: v for k, v in sums.items() if not k.startswith(GLOBAL)})
    if not shared:
        return metrics
    return metrics | {GLOBAL + key: value for key, value in objective.pooled(shared).items()}


def plausible(objective: Objective, sums: Mapping[str, list[float]], rows: int | None) -> bool:
    """Tell whether sums can be those of held-out rows.

    Parameters
    ----------
    objective : Objective
        Whose they are.
    sums : mapping
        Finite numbers, of a client or of several.
    rows : int or None
        How many rows they must be of, if that is known.
    """
    try:
        metrics = pooled(objective, sums)
    except (KeyError, IndexError, ArithmeticError, ValueError, RuntimeError):
        return False
    names = {key: key.removeprefix(GLOBAL) for key in sums}
    if not all(math.isfinite(value) for value in metrics.values()):
        return False
    for key, name in names.items():
        for value in sums[key]:
            if abs(value) > _LARGEST or (value < 0 and name not in objective.signed):
                return False
            if name in objective.counts and not float(value).is_integer():
                return False
    if rows is None or not objective.rows:
        return True
    prefixes = {GLOBAL if key.startswith(GLOBAL) else "" for key in sums}
    return all(sum(sum(sums[p + name]) for name in objective.rows) == rows for p in prefixes)


@torch.inference_mode()
def evaluate(module: nn.Module, examples: Examples, objective: Objective) -> Evaluated:
    """Evaluate on `examples`, at least one; outputs are kept only where the metrics need them."""
    module.eval()
    sums: Statistics = {}
    outputs = []
    for x, y in zip(torch.split(examples.x, BATCH), torch.split(examples.y, BATCH), strict=True):
        output = module(x)
        sums = add(sums, objective.statistics(output, y))
        if objective.needs_outputs:
            outputs.append(output)
    if outputs:
        return Evaluated(objective.metrics(torch.cat(outputs), examples.y), sums)
    return Evaluated(objective.pooled(sums), sums)


@torch.inference_mode()
def bounded_sums(
    module: nn.Module, examples: Examples, objective: Objective, *, per_client: bool
) -> Statistics:
    """Return the sums that noise is added to: one more row moves them by a bounded amount.

    Adding or removing one row moves the weighted vector (`task.bounded`) by no more than its
    sensitivity; where it is the mean over rows, no client's is longer than that. Batches always
    have as many rows, because kernels round a row's outputs otherwise in batches of another size:
    one row more or less moves no other's part.

    Parameters
    ----------
    module : nn.Module
        Must look at each row by itself in evaluation mode.
    examples : Examples
        Rows; may be none.
    objective : Objective
        Whose outputs and targets they are.
    per_client : bool
        Return the mean over the rows, not their sum.

    Raises
    ------
    FedproofError
        If the objective has no bounded sums, or rows mix in the model.
    """
    module.eval()
    bounded = bounded_of(objective)
    _require_rows_apart(module, examples)
    sums = {name: torch.zeros(b.length, dtype=torch.float64) for name, b in bounded.blocks.items()}
    batches = zip(torch.split(examples.x, _FILLED), torch.split(examples.y, _FILLED), strict=True)
    for x, y in batches if len(examples) else ():
        outputs = module(_filled(x))
        losses = objective.loss(outputs, _filled(y))
        count = len(x)
        for name, part in bounded.contributions(outputs[:count], y, losses[:count]).items():
            sums[name] += part.sum(0).cpu()
    rows = max(len(examples), 1) if per_client else 1
    return {name: ((total / rows * GRID).floor() / GRID).tolist() for name, total in sums.items()}


def _require_rows_apart(module: nn.Module, examples: Examples) -> None:
    """Refuse a model in which a made-up row's outputs depend on the others of its batch.

    No row of the examples is looked at, only what they are like: what is found says nothing of
    them.

    Raises
    ------
    FedproofError
        Then.
    """
    shape = (2 * _FILLED, *examples.x.shape[1:])
    made_up = torch.randint(2, shape, generator=torch.Generator().manual_seed(0))
    first, second = made_up.to(examples.x).chunk(2)
    one, other = (module(torch.cat((first[:1], part[1:])))[:1] for part in (first, second))
    if not torch.equal(one.nan_to_num(), other.nan_to_num()):
        raise FedproofError(
            "privacy.evaluation=noised bounds what each row tells by itself, and rows of a batch "
            "mix in this model: choose another, or privacy.evaluation=none."
        )


def bounded_of(objective: Objective) -> Bounded:
    """Return what single rows add to sums that get noise.

    Raises
    ------
    FedproofError
        If no bound on a row's part is known.
    """
    if objective.bounded is None:
        raise FedproofError(
            "privacy.evaluation=noised needs sums of which each row has a bounded part, and "
            f"{type(objective).__name__} has none: choose privacy.evaluation=none."
        )
    return objective.bounded


def _filled(rows: Tensor) -> Tensor:
    """Return a whole batch: the first row again and again after the others."""
    return torch.cat((rows, rows[:1].expand(_FILLED - len(rows), *rows.shape[1:])))


def add(left: Statistics, right: Statistics) -> Statistics:
    """Add two sets of sums, key by key; an empty one is zero."""
    if not left:
        return right
    return {
        key: [a + b for a, b in zip(values, right[key], strict=True)]
        for key, values in left.items()
    }
