"""What single rows contribute to sums that get noise: vectors whose length has a bound.

An evaluation under privacy releases such sums. Each row adds one vector, made of blocks (which
outcome it had, where its score lies, its loss); no block of a row is longer than 1, and each is
multiplied by a weight, so adding or removing a row moves the whole by no more than `sensitivity`.
Whatever a model answers for a row, infinity and NaN included, makes such a vector of the same
shape. Values are multiples of 2^-20: sums of them are exact, in whatever order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GRID = 2.0**20
"""Contributions are multiples of 1 / GRID."""
_LARGE = 1e30
"""In place of an infinite output: finite, and beyond all others that count."""
_GUESSES = 4.0
"""Losses are clipped at so many times that of guessing."""
_VAGUE = 0.15
"""Standard error, over the range of what can be, beyond which a figure is not told."""
_SEEN = 2.0
"""A class counts in ``f1_macro`` from so many standard deviations of its count's noise on."""
Contributions = dict[str, Tensor]
"""By block, what each row adds to it: float64, shape (n, length)."""
Figures = dict[str, float]


@dataclass(frozen=True)
class Block:
    """One part of a row's vector.

    Attributes
    ----------
    length : int
        Of it.
    weight : float
        What it is multiplied by before noise is added: a larger weight is less noise for this
        block, and more for the others.
    """

    length: int
    weight: float


@dataclass(frozen=True)
class Noised:
    """Metrics from noised sums.

    Attributes
    ----------
    metrics : dict of str to float
        As far as they can be told from the noise.
    errors : dict of str to float
        Standard error that the noise gives some of them (delta method).
    """

    metrics: Figures
    errors: Figures


class Bounded(ABC):
    """Bounded contributions of one kind of target, and the metrics of their noised sums."""

    right: ClassVar[tuple[int, ...]] = (0,)
    wrong: ClassVar[tuple[int, ...]] = (1,)
    """Which entries of ``outcomes`` say that a row was predicted right, or wrong."""
    most_loss: float
    """Loss that no row has more of."""

    @property
    @abstractmethod
    def blocks(self) -> Mapping[str, Block]:
        """Blocks by name; ``outcomes`` and ``loss`` among them."""

    @property
    def sensitivity(self) -> float:
        """L2 norm that no row's weighted vector exceeds."""
        return math.sqrt(sum(block.weight**2 for block in self.blocks.values()))

    def contributions(self, outputs: Tensor, targets: Tensor, losses: Tensor) -> Contributions:
        """Return what each row adds.

        Parameters
        ----------
        outputs, targets : Tensor
            As the objective takes them; outputs may be infinite or NaN.
        losses : Tensor, shape (n,)
            Of each row; may be infinite or NaN.
        """
        outputs = outputs.double().nan_to_num(nan=0.0, posinf=_LARGE, neginf=-_LARGE)
        losses = losses.double().nan_to_num(nan=self.most_loss).clamp(0.0, self.most_loss)
        parts = self._parts(outputs, targets) | {"loss": (losses / self.most_loss).unsqueeze(1)}
        return {name: (part * GRID).floor() / GRID for name, part in parts.items()}

    @abstractmethod
    def _parts(self, outputs: Tensor, targets: Tensor) -> Contributions:
        """Return all blocks but the loss, of finite outputs."""

    def read(self, sums: Mapping[str, list[float]], deviation: float) -> Noised:
        """Return the metrics of the rows behind noised sums, none where noise hides how many.

        Parameters
        ----------
        sums : mapping of str to list of float
            By block.
        deviation : float
            Standard deviation of the noise in a block of weight 1.
        """
        outcomes = sums["outcomes"]
        right, wrong = (sum(outcomes[i] for i in part) for part in (self.right, self.wrong))
        count, noise = right + wrong, deviation / self.blocks["outcomes"].weight
        if not count > 0:
            return Noised({}, {})
        accuracy = min(max(right / count, 0.0), 1.0)
        loss = min(max(sums["loss"][0] / count, 0.0), 1.0)
        variance = len(self.right) * (1 - accuracy) ** 2 + len(self.wrong) * accuracy**2
        # Of the sum of losses, and of the count that it is divided by.
        spread = math.hypot(
            deviation / self.blocks["loss"].weight,
            loss * noise * math.sqrt(len(self.right) + len(self.wrong)),
        )
        metrics, errors = {}, {}
        for name, share, error, most in (
            ("accuracy", accuracy, noise * math.sqrt(variance) / count, 1.0),
            ("loss", loss, spread / count, self.most_loss),
        ):
            if error <= _VAGUE:
                metrics[name], errors[name] = share * most, error * most
        if "accuracy" not in metrics:
            return Noised({}, {})
        others = self._others(sums, deviation, metrics)
        return Noised(metrics | others.metrics, errors | others.errors)

    @abstractmethod
    def _others(
        self, sums: Mapping[str, list[float]], deviation: float, told: Mapping[str, float]
    ) -> Noised:
        """Return what is reported besides accuracy and loss, which were `told` if they could be."""


class BoundedBinary(Bounded):
    """Of one logit: a confusion matrix, and a coarse histogram of predicted probabilities."""

    BINS = 8
    right = (0, 3)
    wrong = (1, 2)
    most_loss = _GUESSES * math.log(2)
    blocks: ClassVar[Mapping[str, Block]] = {
        "outcomes": Block(4, 1.0),
        "scores": Block(2 * BINS, 0.7),
        "loss": Block(1, 0.5),
    }

    def _parts(self, outputs: Tensor, targets: Tensor) -> Contributions:
        logits, positive = outputs.reshape(-1), targets.reshape(-1).bool().long()
        cell = 2 * positive + (logits >= 0)
        bins = (logits.sigmoid() * self.BINS).long().clamp(0, self.BINS - 1)
        return {
            "outcomes": _one_hot(cell, 4),
            "scores": _one_hot(positive * self.BINS + bins, 2 * self.BINS),
        }

    def _others(
        self, sums: Mapping[str, list[float]], deviation: float, told: Mapping[str, float]
    ) -> Noised:
        del told
        _, false_positives, false_negatives, hits = (max(v, 0.0) for v in sums["outcomes"])
        found = Noised({}, {})
        if whole := 2 * hits + false_positives + false_negatives:
            found.metrics["f1"] = 2 * hits / whole
        noise = deviation / self.blocks["scores"].weight
        area, error = _area(np.array(sums["scores"]).reshape(2, self.BINS), noise)
        if error <= _VAGUE:
            found.metrics["auroc"], found.errors["auroc"] = area, error
        return found


class BoundedClasses(Bounded):
    """Of one among some classes: right or wrong, and counts by class."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self.most_loss = _GUESSES * math.log(max(classes, 2))

    @property
    def blocks(self) -> Mapping[str, Block]:
        """Blocks by name."""
        counts = dict.fromkeys(("support", "predicted", "hits"), Block(self._classes, 0.5))
        return {"outcomes": Block(2, 1.0), "loss": Block(1, 0.5), **counts}

    def _parts(self, outputs: Tensor, targets: Tensor) -> Contributions:
        predicted = outputs.argmax(1)
        right = (predicted == targets).double().unsqueeze(1)
        support = _one_hot(targets, self._classes)
        return {
            "outcomes": torch.cat((right, 1 - right), 1),
            "support": support,
            "predicted": _one_hot(predicted, self._classes),
            "hits": support * right,
        }

    def _others(
        self, sums: Mapping[str, list[float]], deviation: float, told: Mapping[str, float]
    ) -> Noised:
        del told
        least = _SEEN * deviation / self.blocks["support"].weight
        scores = [
            2 * min(max(hits, 0.0), support) / (support + max(predicted, 0.0))
            for hits, support, predicted in zip(
                *(sums[name] for name in ("hits", "support", "predicted")), strict=True
            )
            if support > least
        ]
        mean = {"f1_macro": min(1.0, sum(scores) / len(scores))} if scores else {}
        return Noised(mean, {})


class BoundedTokens(Bounded):
    """Of sequences, each a row: its share of tokens that were predicted, and its mean loss.

    Every sequence counts the same, however many of its positions are padding.

    Parameters
    ----------
    ignored : int
        Target of a position that counts in nothing.
    """

    most_loss = 10.0
    blocks: ClassVar[Mapping[str, Block]] = {"outcomes": Block(2, 1.0), "loss": Block(1, 0.5)}

    def __init__(self, ignored: int) -> None:
        self._ignored = ignored

    def _parts(self, outputs: Tensor, targets: Tensor) -> Contributions:
        counted = targets != self._ignored
        hits = ((outputs.argmax(-1) == targets) & counted).sum(1)
        share = (hits / counted.sum(1).clamp_min(1)).double()
        return {"outcomes": torch.stack((share, 1 - share), 1)}

    def _others(
        self, sums: Mapping[str, list[float]], deviation: float, told: Mapping[str, float]
    ) -> Noised:
        del sums, deviation
        return Noised({"perplexity": math.exp(told["loss"])} if "loss" in told else {}, {})


def _area(scores: NDArray[np.float64], noise: float) -> tuple[float, float]:
    """Return AUROC from noised histograms, and its standard error (delta method).

    Noise of mean zero, other in each bin, leaves the Mann-Whitney sum without bias; cutting
    negative bins off would not.

    Parameters
    ----------
    scores : float64 array, shape (2, bins)
        Of negatives and of positives by score, which rises from bin to bin.
    noise : float
        Standard deviation of the noise in a bin.
    """
    whole = scores.sum(1, keepdims=True)
    if not (whole > 0).all():
        return 0.5, math.inf
    negatives, positives = scores / whole
    # Of each bin, the share of the other class that it is ranked right against.
    below = negatives.cumsum() - negatives / 2
    above = positives[::-1].cumsum()[::-1] - positives / 2
    area = min(max(float(positives @ below), 0.0), 1.0)
    rates = np.stack((above, below)).clip(0.0, 1.0) - area
    return area, noise * float(np.sqrt(np.square(rates / whole).sum()))


def _one_hot(places: Tensor, length: int) -> Tensor:
    return torch.nn.functional.one_hot(places, length).double()
