"""Binary classification's metrics from histograms of scores, one for each class."""

from __future__ import annotations

from torch import Tensor


def rank_metrics(positives: Tensor, negatives: Tensor, decided: int) -> dict[str, float]:
    """Return what binary classification is measured by.

    Parameters
    ----------
    positives, negatives : Tensor of float64, shape (bins,)
        Examples of each class by score, which rises from bin to bin.
    decided : int
        The first bin whose examples are predicted positive.

    Returns
    -------
    dict of str to float
        ``accuracy``, and as far as the classes that occur define them ``f1``,
        ``average_precision``, ``auroc``.
    """
    hits, false_alarms = float(positives[decided:].sum()), float(negatives[decided:].sum())
    misses, passes = float(positives[:decided].sum()), float(negatives[:decided].sum())
    result = {"accuracy": (hits + passes) / (hits + passes + misses + false_alarms)}
    if hits + misses > 0:
        result["f1"] = 2 * hits / (2 * hits + false_alarms + misses)
        result["average_precision"] = _average_precision(positives, negatives)
        if false_alarms + passes > 0:
            result["auroc"] = _area_under_roc(positives, negatives)
    return result


def _area_under_roc(positives: Tensor, negatives: Tensor) -> float:
    """AUROC from score histograms; a tie within a bin counts one half (Mann-Whitney)."""
    below = negatives.cumsum(0) - negatives
    wins = (positives * (below + 0.5 * negatives)).sum()
    return float(wins / (positives.sum() * negatives.sum()))


def _average_precision(positives: Tensor, negatives: Tensor) -> float:
    """Average precision from score histograms: sum of precision × increase of recall."""
    hits = positives.flip(0).cumsum(0)
    alarms = negatives.flip(0).cumsum(0)
    precision = hits / (hits + alarms).clamp_min(1.0)
    return float((precision * positives.flip(0)).sum() / positives.sum())
