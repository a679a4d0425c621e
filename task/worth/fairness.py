"""How evenly a model serves its clients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Fairness:
    """Of one figure per client.

    Attributes
    ----------
    worst : float
        The lowest score.
    worst_decile : float
        Mean of the worst tenth, see `worst_tenth`.
    variance : float
        Of the scores.
    gini : float or None
        Gini coefficient, 0 where all are equal; None unless all scores are positive.
    """

    worst: float
    worst_decile: float
    variance: float
    gini: float | None


def fairness(scores: NDArray[np.float64]) -> Fairness:
    """Return the figures of some scores, at least one, of which higher is better."""
    ordered = np.sort(scores)
    positive = ordered[0] > 0
    return Fairness(
        worst=float(ordered[0]),
        worst_decile=worst_tenth(ordered),
        variance=float(ordered.var()),
        gini=gini(ordered) if positive else None,
    )


def worst_tenth(scores: NDArray[np.float64], *, lower_is_better: bool = False) -> float:
    """Return the mean of the worst tenth of the scores (Li et al. 2020, q-FFL, table 1).

    Of n clients these are the worst ⌈n/10⌉: rounded up, so that it is a tenth at least, and of
    nine clients still the worst one.
    """
    ordered = np.sort(scores)[:: -1 if lower_is_better else 1]
    return float(ordered[: -(-len(ordered) // 10)].mean())


def gini(values: NDArray[np.float64]) -> float:
    """Return the Gini coefficient of positive values: half their relative mean difference."""
    ordered = np.sort(values)
    count = len(ordered)
    ranks = 2 * np.arange(1, count + 1) - count - 1
    return float((ranks * ordered).sum() / (count * ordered.sum()))
