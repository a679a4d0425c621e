"""Whether a model treats a batch's rows one by one, and a way to clip bounds each: measured.

Clipping bounds what a record does to a sum of gradients only if no other record's gradient depends
on it, and if what is clipped is the record's gradient. Both are properties of a model's code, which
no list of layers can tell. So they are measured once per model, on random rows and random weights:
neither the server's weights nor a client's data decide what is found. Random numbers that a model
draws (dropout) are replaced by their means meanwhile, so that rows can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conf.errors import FedproofError
from task.base import Examples
from task.objectives import Metrics, Objective, Statistics
from task.privacy.noise import SecureNoise
from task.privacy.one_by_one import Clip
from task.privacy.random_free import without_randomness

Clipper = Callable[[nn.Module, Examples, Objective, Clip], tuple[Tensor, Tensor]]
"""As `task.privacy.ghost.add_clipped`."""

_ROWS = 3
_SAME = 1e-6
"""How far values may differ, relative to the largest, that the same computation gives."""
_NEAR = 1e-3
"""How far those may differ that another order of computation gives."""
_LEAST = 1e-30
_PERIOD = 65_521
"""Prime, so that no two rows of a matrix are alike."""
_BOUND = 1e-5
"""How much further than the clip, in proportion, a row may move a sum."""


class DependentError(Exception):
    """Why a model cannot be trained with record-level privacy."""


@dataclass(frozen=True)
class Shape:
    """What a model is given, without what is in it.

    Attributes
    ----------
    input : torch.Size
        Of one example.
    dtype : torch.dtype
        Of the inputs.
    device : torch.device
        Where they are.
    """

    input: torch.Size
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, examples: Examples) -> Shape:
        """Return the shape of these examples; nothing else of them is looked at."""
        return cls(examples.x.shape[1:], examples.x.dtype, examples.x.device)


class Probe:
    """A model on trial, with random weights; see `probing`.

    Parameters
    ----------
    module : nn.Module
        In training mode.
    shape : Shape
        Of its inputs.
    """

    def __init__(self, module: nn.Module, shape: Shape) -> None:
        self._module = module
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        embeddings = [m.num_embeddings for m in module.modules() if isinstance(m, nn.Embedding)]
        symbols = min(embeddings, default=2)
        self._x, self._other = (_inputs(shape, symbols, shift) for shift in range(2))
        self._kept = self._x.clone()
        self._buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}

    @property
    def examples(self) -> Examples:
        """What the model is tried with."""
        return Examples(self._x, torch.zeros(_ROWS, device=self._x.device))

    def require_outputs(self) -> None:
        """Check that the model computes an output for each row.

        Raises
        ------
        DependentError
            Otherwise.
        """
        self._outputs(self._x)

    def require_independent(self) -> None:
        """Check that rows do not mix, and that training leaves nothing behind but gradients.

        Raises
        ------
        DependentError
            Otherwise.
        """
        x = self._x
        outputs = self._outputs(x)
        if not bool(outputs.isfinite().all()):
            raise DependentError(f"{_name(self._module)} gives random inputs no finite outputs")
        self._require_unchanged()
        if not _equal(self._outputs(x), outputs, _SAME):
            raise DependentError(f"{_name(self._module)} computes something else each time")
        for changed, rows in self._changes():
            if not _equal(self._outputs(changed)[rows], outputs[rows], _SAME):
                raise DependentError(_mixing(self._module, x, changed, rows))
        for rows in ([0], *(_others(row) for row in range(_ROWS))):
            if not _equal(self._outputs(x[rows]), outputs[rows], _NEAR):
                raise DependentError(
                    f"{_name(self._module)} computes something else for an example if it is in "
                    "another batch"
                )
        if not _equal(self._outputs(x), outputs, _SAME):
            raise DependentError(f"{_name(self._module)} remembers examples it has seen")
        self._require_unchanged()

    def _require_unchanged(self) -> None:
        if not torch.equal(self._x, self._kept):
            raise DependentError(f"{_name(self._module)} changes its input")
        for name, buffer in self._module.named_buffers():
            if name not in self._buffers or not _equal(buffer, self._buffers[name], 0.0):
                owner = self._module.get_submodule(name.rpartition(".")[0])
                if isinstance(owner, _BATCH_NORM):
                    raise DependentError(f"{_name(owner)} mixes examples: choose GroupNorm")
                raise DependentError(
                    f"its buffer {name} changes in training and would leave without noise"
                )

    def require_loss(self, objective: Objective, targets: Tensor) -> None:
        """Check that an objective's loss of an example depends on no other.

        Parameters
        ----------
        objective : Objective
            The task's.
        targets : Tensor, shape (n, ...)
            Of which only the shape and kind are looked at.

        Raises
        ------
        DependentError
            Otherwise.
        """
        outputs = self._outputs(self._x).detach()
        y = targets.new_zeros((_ROWS, *targets.shape[1:]))
        whole = objective.loss(outputs, y)
        if whole.shape != (_ROWS,):
            raise DependentError("the task's loss is not one number per example")
        changed = torch.cat([outputs[:1] + 1, outputs[1:]])
        if not (
            _equal(objective.loss(changed, y)[1:], whole[1:], _SAME)
            and _equal(objective.loss(outputs[:-1], y[:-1]), whole[:-1], _NEAR)
        ):
            raise DependentError("the task's loss mixes examples")

    def fits(self, clipper: Clipper) -> bool:
        """Return whether a way to clip finds this model's gradients, and bounds each row's."""
        try:
            return self._is_right(clipper) and self._is_bounded(clipper)
        except Exception:  # each way has its own for what it does not know
            return False

    def _is_right(self, clipper: Clipper) -> bool:
        """Return whether the weighted sum of gradients is autograd's, and norms are theirs."""
        loss = _Projection(self._outputs(self._x))
        losses = loss.loss(self._outputs(self._x), loss.targets)
        rows = [self._gradients(losses[row]) for row in range(_ROWS)]
        true = torch.stack([_whole(row) for row in rows])
        usual = float(true.mean())

        def weights(norms: Tensor) -> Tensor:
            # Each row has its own, so that none is taken for another.
            whole: Tensor = torch.linalg.vector_norm(norms, dim=1, keepdim=True)
            return (1 + whole / max(usual, _LEAST)).reciprocal()

        found, norms = self._sum(clipper, loss, slice(None), weights)
        shares = weights(true.unsqueeze(1)).squeeze(1)
        total = [
            torch.stack([w * g for w, g in zip(shares, column, strict=True)]).sum(0)
            for column in zip(*rows, strict=True)
        ]
        slack = 0.1 * _NEAR * float(_whole(total))
        for one, other in zip(found, total, strict=True):
            if not (one - other).norm() <= _NEAR * other.norm() + slack:
                return False
        whole = norms.double().norm(dim=1)
        enough = (whole >= true * (1 - _NEAR)) & (whole <= true * (1 + 10 * _NEAR) + slack)
        return bool(enough.all())

    def _is_bounded(self, clipper: Clipper) -> bool:
        """Return whether leaving out a row moves the clipped sum by no more than the clip."""
        loss = _Projection(self._outputs(self._x))
        _, norms = self._sum(clipper, loss, slice(None), torch.ones_like)
        limit = float(norms.norm(dim=1).median()) / 2
        clip: Clip
        for clip in (
            lambda n: (limit / n.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1.0),
            lambda n: (limit / n.shape[1] ** 0.5 / n.clamp_min(1e-12)).clamp_max(1.0),
        ):
            whole, _ = self._sum(clipper, loss, slice(None), clip)
            for rest in (slice(1, None), slice(0, -1)):
                part, _ = self._sum(clipper, loss, rest, clip)
                moved = _whole([one - other for one, other in zip(whole, part, strict=True)])
                if not moved <= limit * (1 + _BOUND):
                    return False
        return True

    def _sum(
        self, clipper: Clipper, loss: _Projection, rows: slice, clip: Clip
    ) -> tuple[list[Tensor], Tensor]:
        """Return what a clipper adds to each parameter's gradient, and the rows' norms."""
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        examples = Examples(self._x[rows], loss.targets[rows])
        _, norms = clipper(self._module, examples, loss, clip)
        return [p.grad.double() for p in self._parameters if p.grad is not None], norms

    def _gradients(self, loss: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(loss, self._parameters, retain_graph=True, allow_unused=True)
        return [
            torch.zeros_like(p, dtype=torch.float64) if g is None else g.to_dense().double()
            for p, g in zip(self._parameters, found, strict=True)
        ]

    def _outputs(self, x: Tensor) -> Tensor:
        try:
            outputs = self._module(x)
        except Exception as error:
            raise DependentError(
                f"{_name(self._module)} cannot compute {len(x)} random examples: "
                f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
            ) from error
        if not isinstance(outputs, Tensor) or outputs.dim() < 1 or len(outputs) != len(x):
            raise DependentError(f"{_name(self._module)} does not return one output per example")
        return outputs

    def _changes(self) -> Iterator[tuple[Tensor, list[int]]]:
        """Yield inputs of which one row is another, and which rows are as they were."""
        kinds = [self._other]
        if self._x.is_floating_point():
            kinds += [torch.full_like(self._x, extreme) for extreme in (1e30, torch.nan)]
        for other in kinds:
            for row in range(_ROWS):
                changed = self._x.clone()
                changed[row] = other[row]
                yield changed, _others(row)


class _Projection(Objective):
    """A loss of outputs of any shape: their products with random numbers, and their squares."""

    def __init__(self, outputs: Tensor) -> None:
        self.targets = _normal(outputs.shape, 2).to(outputs.device, outputs.dtype)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs * targets + 0.5 * outputs.square()).reshape(len(outputs), -1).sum(1)

    def statistics(self, outputs: Tensor, targets: Tensor) -> Statistics:
        raise NotImplementedError

    def pooled(self, sums: Mapping[str, list[float]]) -> Metrics:
        raise NotImplementedError

    def metrics(self, outputs: Tensor, targets: Tensor) -> Metrics:
        raise NotImplementedError


@contextmanager
def probing(module: nn.Module, shape: Shape) -> Iterator[Probe]:
    """Yield a model with random weights, on trial; afterwards it is as it was, to the last bit.

    Raises
    ------
    FedproofError
        If the model does not fit.
    """
    training = {m: m.training for m in module.modules()}
    values = [(p, p.detach().clone(), p.grad) for p in module.parameters()]
    buffers = [
        (m, name, buffer, buffer.detach().clone())
        for m in module.modules()
        for name, buffer in m.named_buffers(recurse=False)
    ]
    devices = [] if shape.device.type == "cpu" else [shape.device]
    try:
        with torch.random.fork_rng(devices=devices):
            module.train()
            with torch.no_grad():
                for number, (parameter, _, _) in enumerate(values):
                    parameter.copy_(_weights(parameter, number))
            probe = Probe(module, shape)
            with without_randomness(module, probe.require_outputs):
                yield probe
    except DependentError as error:
        raise FedproofError(f"privacy=record_dp does not fit this model: {error}.") from None
    finally:
        for m, mode in training.items():
            m.training = mode
        with torch.no_grad():
            for parameter, value, grad in values:
                parameter.copy_(value)
                parameter.grad = grad
            for m, name, buffer, value in buffers:
                m._buffers[name] = buffer.copy_(value)  # it may have been replaced


def _mixing(module: nn.Module, x: Tensor, changed: Tensor, rows: list[int]) -> str:
    """Return who mixes first: rows go in as they were, and come out changed."""
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        if given and isinstance(given[0], Tensor) and isinstance(output, Tensor):
            seen.append((layer, given[0].detach().clone(), output.detach().clone()))

    hooks = [m.register_forward_hook(note) for m in module.modules() if m is not module]
    try:
        for inputs in (x, changed):
            module(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    half = len(seen) // 2
    names = {m: name for name, m in module.named_modules()}
    for (layer, given, output), (_, other, result) in zip(seen[:half], seen[half:], strict=False):
        same_rows = len(given) == len(output) == len(x)
        if (
            same_rows
            and _equal(given[rows], other[rows], _SAME)
            and not _equal(output[rows], result[rows], _SAME)
        ):
            advice = ": choose GroupNorm" if isinstance(layer, _BATCH_NORM) else ""
            return f"{_name(layer)} ({names[layer]}) mixes examples{advice}"
    return f"{_name(module)} mixes examples"


_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def _equal(one: Tensor, other: Tensor, tolerance: float) -> bool:
    """Return whether finite values are the same, relative to the largest."""
    if one.shape != other.shape:
        return False
    if not tolerance or not other.is_floating_point():
        return torch.equal(one, other)
    largest = float(other.detach().abs().max()) if other.numel() else 0.0
    return bool(((one - other).abs() <= tolerance * (largest + _LEAST)).all())


def _others(row: int) -> list[int]:
    return [other for other in range(_ROWS) if other != row]


def _inputs(shape: Shape, symbols: int, shift: int) -> Tensor:
    """Return random inputs: normal ones, or symbols below a number, other ones in each row."""
    values = _normal((_ROWS, *shape.input), shift)
    if not shape.dtype.is_floating_point:
        own = (torch.arange(_ROWS) + shift).remainder(_ROWS).view(-1, *[1] * len(shape.input))
        choices = max(1, symbols // _ROWS)
        values = (values.abs() * 1000).floor().remainder(choices) * _ROWS + own
        values = values.remainder(symbols)
    return values.to(shape.device, shape.dtype)


def _weights(parameter: Tensor, number: int) -> Tensor:
    """Return random weights such that layers neither vanish nor explode."""
    values = _normal(parameter.shape, 3 + number)
    if parameter.dim() > 1:
        return values / math.sqrt(parameter[0].numel())
    return 1 + 0.3 * values


def _normal(shape: torch.Size | tuple[int, ...], number: int) -> Tensor:
    """Return normal numbers, the same whenever they are asked for: a verdict must not change."""
    # Large ones repeat: what takes long to draw would make none of the comparisons stricter.
    values = SecureNoise(number.to_bytes(32)).gaussian(min(_PERIOD, math.prod(shape)), 1.0)
    return torch.from_numpy(np.resize(values.astype(np.float32), tuple(shape)))


def _whole(tensors: list[Tensor]) -> Tensor:
    whole: Tensor = torch.linalg.vector_norm(torch.stack([t.norm() for t in tensors]))
    return whole


def _name(module: nn.Module) -> str:
    return type(module).__name__
