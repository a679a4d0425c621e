"""Objectives: the loss that is minimised and the metrics that its field reports.

Held-out metrics over all clients are computed without moving rows: each client sends *sums*
(`Objective.statistics`: counts, confusion counts, score histograms), the sums are added, and
`Objective.pooled` turns them into the figure that scikit-learn would give on the union of the
held-out rows (rank metrics up to the width of a histogram bin). A client's own figures come
from `Objective.metrics`. Both use scikit-learn's names and definitions, the oracle of the tests.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from task.bounded import Bounded, BoundedBinary, BoundedClasses, BoundedTokens
from task.rank_metrics import rank_metrics

Statistics = dict[str, list[float]]
Metrics = dict[str, float]
Derivative = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""From a step and outputs, shape (models, batch, ...): each loss, the sum's derivative by them."""

SCORE_BINS = 1024
SCORE_RANGE = 12.0
"""Score histograms span logits in [-SCORE_RANGE, SCORE_RANGE]: 0.023 logits a bin."""


class Objective(ABC):
    """Loss and metrics of a kind of target."""

    needs_outputs: ClassVar[bool] = True
    """Whether a client's own metrics need all outputs at once; if not, sums are enough."""
    signed: ClassVar[frozenset[str]] = frozenset()
    """Sums that may be negative."""
    counts: ClassVar[frozenset[str]] = frozenset()
    """Sums that are whole numbers."""
    rows: ClassVar[tuple[str, ...]] = ()
    """Those of them that add up to the number of rows."""
    bounded: Bounded | None = None  # What rows add to sums that get noise, if that is bounded.

    def __init_subclass__(cls, **options: Any) -> None:
        """Derive a loss of its own by itself: what a parent wrote out is the parent's loss's."""
        super().__init_subclass__(**options)
        if "loss" in vars(cls):
            for name in ("gradient", "weighted"):
                if name not in vars(cls):
                    setattr(cls, name, vars(Objective)[name])

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each example, shape (n,)."""

    def gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of each example, and its derivative by that example's outputs."""
        leaf = outputs.detach().requires_grad_()
        with torch.enable_grad():
            losses = self.loss(leaf, targets)
            (derivative,) = torch.autograd.grad(losses.sum(), leaf)
        return losses.detach(), derivative

    def weighted(self, targets: Tensor, share: Tensor) -> Derivative:
        """Return the derivative of many models' losses, step after step.

        Parameters
        ----------
        targets : Tensor, shape (models, steps, batch, ...)
            Of each model's batches.
        share : Tensor, shape (models, steps, batch)
            What each row counts in its batch's loss.
        """

        def derivative(step: int, outputs: Tensor) -> tuple[Tensor, Tensor]:
            found, grad = self.gradient(outputs.flatten(0, 1), targets[:, step].flatten(0, 1))
            part = share[:, step]
            losses = (found.view(part.shape) * part).sum(1)
            return losses, grad.view(outputs.shape).mul_(part.unsqueeze(2))

        return derivative

    @abstractmethod
    def statistics(self, outputs: Tensor, targets: Tensor) -> Statistics:
        """Return sums over examples that add up across clients."""

    @abstractmethod
    def pooled(self, sums: Mapping[str, list[float]]) -> Metrics:
        """Return the metrics of the union of the rows behind `sums`."""

    def metrics(self, outputs: Tensor, targets: Tensor) -> Metrics:
        """Return one client's metrics; those undefined on its rows are left out."""
        return self.pooled(self.statistics(outputs, targets))


class Binary(Objective):
    """Binary classification from one logit.

    Outputs have shape (n, 1) or (n,), targets (n,) with values 0 and 1.
    Metrics: ``accuracy``, ``auroc``, ``average_precision``, ``f1``, ``loss``.
    """

    counts = frozenset({"positives", "negatives"})
    rows = ("positives", "negatives")
    bounded = BoundedBinary()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        logits = outputs.reshape(-1)
        return functional.binary_cross_entropy_with_logits(
            logits, targets.to(logits.dtype), reduction="none"
        )

    def gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        derivative = outputs.sigmoid().sub_(targets.reshape(outputs.shape))
        return self.loss(outputs, targets), derivative

    def statistics(self, outputs: Tensor, targets: Tensor) -> Statistics:
        logits = outputs.reshape(-1)
        positive = targets.bool()
        scaled = (logits.double() + SCORE_RANGE) * (SCORE_BINS / (2 * SCORE_RANGE))
        # The bin edge at logit 0 keeps the two sides of the decision apart.
        bins = scaled.floor().long().clamp(0, SCORE_BINS - 1)
        return {
            "loss": [float(self.loss(outputs, targets).double().sum())],
            "negatives": torch.bincount(bins[~positive], minlength=SCORE_BINS).tolist(),
            "positives": torch.bincount(bins[positive], minlength=SCORE_BINS).tolist(),
        }

    def pooled(self, sums: Mapping[str, list[float]]) -> Metrics:
        positives = torch.tensor(sums["positives"], dtype=torch.float64)
        negatives = torch.tensor(sums["negatives"], dtype=torch.float64)
        loss = sums["loss"][0] / float(positives.sum() + negatives.sum())
        return {"loss": loss} | rank_metrics(positives, negatives, SCORE_BINS // 2)

    def metrics(self, outputs: Tensor, targets: Tensor) -> Metrics:
        # A histogram with one bin per distinct score is exact.
        scores, bins = torch.unique(outputs, return_inverse=True)
        positive = targets.bool()
        positives, negatives = (
            torch.bincount(bins.reshape(-1)[side], minlength=len(scores)).double()
            for side in (positive, ~positive)
        )
        loss = float(self.loss(outputs, targets).double().mean())
        decided = int((scores < 0).sum())
        return {"loss": loss} | rank_metrics(positives, negatives, decided)


class MultiClass(Objective):
    """Classification among `classes`.

    Outputs have shape (n, classes), targets (n,) of int64.
    Metrics: ``accuracy``, ``f1_macro`` (over the classes that occur), ``loss``.
    """

    needs_outputs = False
    counts = frozenset({"support", "predicted", "hits"})
    rows = ("support",)

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.bounded = BoundedClasses(classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets, reduction="none")

    def gradient(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        likelihood = functional.log_softmax(outputs, 1)
        at = targets.unsqueeze(1)
        losses = likelihood.gather(1, at).squeeze(1).neg_()
        return losses, likelihood.exp_().scatter_add_(
            1, at, outputs.new_full((), -1.0).expand_as(at)
        )

    def weighted(self, targets: Tensor, share: Tensor) -> Derivative:
        # The share at the target, negative, and 0 elsewhere: the derivative by log-likelihoods.
        pulls = share.new_zeros((*share.shape, self.classes))
        pulls.scatter_(-1, targets.unsqueeze(-1), share.neg().unsqueeze(-1))
        steps = list(zip(pulls.unbind(1), share.unsqueeze(-1).unbind(1), strict=True))

        def derivative(step: int, outputs: Tensor) -> tuple[Tensor, Tensor]:
            pull, part = steps[step]
            likelihood = outputs.log_softmax(-1)
            losses = (likelihood * pull).sum((1, 2))
            return losses, torch.addcmul(pull, likelihood.exp_(), part)

        return derivative

    def statistics(self, outputs: Tensor, targets: Tensor) -> Statistics:
        predicted = outputs.argmax(1)

        def count(values: Tensor) -> list[float]:
            return torch.bincount(values, minlength=self.classes).double().tolist()

        return {
            "loss": [float(self.loss(outputs, targets).double().sum())],
            "support": count(targets),
            "predicted": count(predicted),
            "hits": count(targets[predicted == targets]),
        }

    def pooled(self, sums: Mapping[str, list[float]]) -> Metrics:
        hits, support, predicted = (
            torch.tensor(sums[key], dtype=torch.float64) for key in ("hits", "support", "predicted")
        )
        occurs = (support + predicted) > 0
        f1 = 2 * hits[occurs] / (support + predicted)[occurs]
        total = float(support.sum())
        return {
            "loss": sums["loss"][0] / total,
            "accuracy": float(hits.sum()) / total,
            "f1_macro": float(f1.mean()),
        }


class NextToken(Objective):
    """Next-symbol prediction at every position of a sequence.

    Outputs have shape (n, length, symbols), targets (n, length) of int64; positions with target
    ``IGNORED`` (padding) count in nothing. Metrics: ``accuracy``, ``perplexity``, ``loss``.
    """

    IGNORED = -100
    needs_outputs = False
    counts = frozenset({"hits", "tokens"})
    bounded = BoundedTokens(IGNORED)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses = functional.cross_entropy(
            outputs.transpose(1, 2), targets, reduction="none", ignore_index=self.IGNORED
        )
        return losses.sum(1) / (targets != self.IGNORED).sum(1).clamp_min(1)

    def statistics(self, outputs: Tensor, targets: Tensor) -> Statistics:
        counted = targets != self.IGNORED
        losses = functional.cross_entropy(outputs[counted], targets[counted], reduction="sum")
        hits = (outputs.argmax(-1) == targets) & counted
        return {
            "loss": [float(losses)],
            "hits": [float(hits.sum())],
            "tokens": [float(counted.sum())],
        }

    def pooled(self, sums: Mapping[str, list[float]]) -> Metrics:
        tokens = max(sums["tokens"][0], 1.0)
        loss = sums["loss"][0] / tokens
        return {
            "loss": loss,
            "accuracy": sums["hits"][0] / tokens,
            "perplexity": math.exp(min(loss, 700.0)),
        }


class Regression(Objective):
    """A real target with squared error.

    Outputs have shape (n, 1) or (n,), targets (n,).
    Metrics: ``r2``, ``mean_absolute_error``, ``root_mean_squared_error``, ``loss``.
    """

    needs_outputs = False
    signed = frozenset({"target"})
    counts = frozenset({"count"})
    rows = ("count",)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.reshape(-1) - targets).square()

    def statistics(self, outputs: Tensor, targets: Tensor) -> Statistics:
        error = outputs.reshape(-1).double() - targets.double()
        return {
            "count": [float(len(targets))],
            "target": [float(targets.double().sum())],
            "target_squares": [float(targets.double().square().sum())],
            "absolute": [float(error.abs().sum())],
            "squares": [float(error.square().sum())],
        }

    def pooled(self, sums: Mapping[str, list[float]]) -> Metrics:
        count = sums["count"][0]
        mean_squares = sums["squares"][0] / count
        spread = sums["target_squares"][0] - sums["target"][0] ** 2 / count
        result = {
            "loss": mean_squares,
            "mean_absolute_error": sums["absolute"][0] / count,
            "root_mean_squared_error": math.sqrt(mean_squares),
        }
        if spread > 0:
            result["r2"] = 1 - sums["squares"][0] / spread
        return result


LOWER_IS_BETTER = frozenset(
    {"loss", "perplexity", "mean_absolute_error", "root_mean_squared_error"}
)
"""Metrics that improve downwards; the others improve upwards."""
SHARES = frozenset({"accuracy", "auroc", "average_precision", "f1", "f1_macro"})
"""Metrics from 0 to 1."""
