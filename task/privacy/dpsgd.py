"""DP-SGD (Abadi et al. 2016): Poisson batches, clipped gradients, Gaussian noise.

Batches and noise come from the operating system's randomness: who knew the seed of either could
take the noise off, or tell who was in a batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from conf.schema import TrainConfig
from task.base import Examples
from task.batches import seeded
from task.flat import FlatModel
from task.objectives import Objective
from task.privacy.accounting import Spend
from task.privacy.adaptive import AdaptiveClip
from task.privacy.clipping import clipper_for
from task.privacy.noise import SecureNoise
from task.privacy.one_by_one import finite_rows
from task.training import Memory, Trained, optimizing, shape_gradient

PHYSICAL = {"cpu": 32, "cuda": 512}
"""Examples of a batch that are computed at once: on a CPU more take memory, and no less time."""

CLIP = "clip"
"""Name of an adapted clip in a client's memory."""


@dataclass(frozen=True)
class Mechanism:
    """What one client's DP-SGD does in a round.

    Attributes
    ----------
    sigma : float
        Noise multiplier: standard deviation of the noise over `clip`.
    clip : float
        Norm that no example's gradient exceeds.
    per_layer : bool
        Whether each parameter's gradient is clipped by itself, to ``clip / sqrt(parameters)``.
    rate : float
        Probability with which an example is in a batch.
    steps : int
        Batches in a round.
    physical : int or None
        Examples of a batch that are computed at once; None: by the device (`PHYSICAL`).
    adaptive : AdaptiveClip or None
        How `clip` changes from batch to batch.
    rows : int or None
        Number of examples as others may know it, by which noised sums become means: the exact one
        would show in them. None: the exact one.
    """

    sigma: float
    clip: float
    per_layer: bool
    rate: float
    steps: int
    physical: int | None = None
    adaptive: AdaptiveClip | None = None
    rows: int | None = None

    @property
    def spend(self) -> Spend:
        """What a round releases."""
        return Spend(self.sigma, self.rate, self.steps)


def batch_plan(rows: int, config: TrainConfig) -> tuple[float, int]:
    """Return the sampling rate and the batches of a round, for ``batch_size`` in expectation."""
    rate = min(1.0, config.batch_size / rows)
    return rate, config.steps or config.epochs * math.ceil(1 / rate)


def train_privately(
    model: FlatModel,
    examples: Examples,
    objective: Objective,
    config: TrainConfig,
    mechanism: Mechanism,
    *,
    seed: int,
    proximal_mu: float = 0.0,
    memory: Memory | None = None,
    drift: Tensor | None = None,
) -> Trained:
    """Train `model` in place, as `task.training.train` does, with `mechanism` for every step.

    `seed` is for dropout only. The loss is not reported: it is no release of the mechanism. A clip
    that adapts is part of the memory. `drift` is added after the noise, so it must come from what
    was released already, such as models of earlier rounds.
    """
    device = model.vector.device
    start = model.vector.detach().clone() if proximal_mu else None
    known = dict(memory or {})
    clipping = _Clipping(mechanism, known.pop(CLIP, None))
    model.module.train()
    with seeded(seed, device), optimizing(model, config, known, False) as optimizer:
        release = _Release(model, examples, objective, clipping)
        for _ in range(mechanism.steps):
            optimizer.zero_grad()
            release.step()
            values = model.vector.detach()
            shape_gradient(model.gradient, values, start, config, proximal_mu, drift=drift)
            optimizer.step()
    kept = optimizer.memory() | clipping.memory()
    return Trained(math.nan, mechanism.steps, kept, mechanism)


class _Clipping:
    """The clip, which may adapt from batch to batch."""

    def __init__(self, mechanism: Mechanism, last: Tensor | None) -> None:
        self.mechanism = mechanism
        self.limit = mechanism.clip if last is None or not mechanism.adaptive else float(last)
        self._centred = 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise on a sum of clipped gradients."""
        adaptive = self.mechanism.adaptive
        return (adaptive.sigma_sum if adaptive else self.mechanism.sigma) * self.limit

    def factors(self, norms: Tensor) -> Tensor:
        """Return what shortens gradients, from their norms per parameter, shape (n, parameters)."""
        if self.mechanism.per_layer:
            return _factors(self.limit / math.sqrt(norms.shape[1]), norms)
        whole = norms.norm(dim=1, keepdim=True)
        self._centred += float((whole <= self.limit).sum()) - len(whole) / 2
        return _factors(self.limit, whole)

    def adapt(self, noise: SecureNoise) -> None:
        """Choose the next batch's clip."""
        if adaptive := self.mechanism.adaptive:
            self.limit = adaptive.updated(self.limit, self._centred, noise)
        self._centred = 0.0

    def memory(self) -> Memory:
        return {CLIP: torch.tensor(self.limit)} if self.mechanism.adaptive else {}


class _Release:
    """One client's noised sums of clipped gradients."""

    def __init__(
        self, model: FlatModel, examples: Examples, objective: Objective, clipping: _Clipping
    ) -> None:
        self._model, self._examples = model, examples
        self._objective, self._clipping = objective, clipping
        self._device = model.vector.device
        self._noise = SecureNoise()
        # Others count as examples whose gradient is zero: see `task.privacy.one_by_one`.
        self._finite = finite_rows(examples).cpu()
        self._clipper = clipper_for(model.module, examples, objective)
        mechanism = clipping.mechanism
        self._rate = mechanism.rate
        rows = len(examples) if mechanism.rows is None else mechanism.rows
        self._expected = self._rate * rows
        self._physical = mechanism.physical or PHYSICAL[self._device.type]

    def step(self) -> None:
        """Put the noised mean of one Poisson batch into the model's gradient."""
        examples, gradient = self._examples, self._model.gradient
        drawn = torch.from_numpy(self._noise.bernoulli(len(examples), self._rate)) & self._finite
        for rows in torch.split(drawn.nonzero().squeeze(1), self._physical):
            if len(rows):
                there = rows.to(self._device)
                chosen = Examples(examples.x[there], examples.y[there])
                self._clipper(self._model.module, chosen, self._objective, self._clipping.factors)
        add_noise(gradient, self._clipping.deviation, self._noise)
        self._clipping.adapt(self._noise)
        gradient.div_(self._expected)


def add_noise(gradient: Tensor, deviation: float, noise: SecureNoise) -> None:
    """Add Gaussian noise, in place; it is made on the CPU, wherever the gradient is."""
    if deviation:
        values = gradient.cpu()
        noise.noised(values.numpy(), deviation, out=values.numpy())
        gradient.copy_(values)


def _factors(limit: float, norms: Tensor) -> Tensor:
    """Return what shortens norms to a limit; a zero gradient stays zero."""
    return torch.full_like(norms, limit).div_(norms.clamp_min(1e-12)).clamp_max_(1.0)
