"""What a comparison measured, and what it means client by client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from task.objectives import SHARES
from task.worth.bootstrap import Interval, Values, interval
from task.worth.heterogeneity import outlying_low

MARGIN = 0.01
"""Differences below one point of a share, or one per cent of another metric, are no gain."""
FEWEST_TRAIN = 20
FEWEST_TEST = 10
"""Rows of a client below which its own figures say nothing."""
_ASTRAY = 0.25
"""How far below the others' an update's cosine must lie to be conspicuous."""
_BADLY_SERVED = 10
"""The same of a client's score, in margins."""


def least_gain(metric: str, values: Values) -> float:
    """Return the least difference that counts, among values of a metric."""
    return MARGIN if metric in SHARES else MARGIN * float(np.nanmean(np.abs(values)))


@dataclass(frozen=True)
class Evidence:
    """The measurements of a comparison, shape (seeds, clients) each; NaN where there is none.

    Attributes
    ----------
    metric : str
        Which figure they are.
    clients : tuple of str
        The columns.
    federated, local : ndarray
        Of the federated model, and of each client's own.
    central : ndarray or None
        Of the model trained on everybody's rows.
    unprotected : ndarray or None
        Of the federated model without the run's privacy.
    alignment : ndarray or None
        Cosine between what each client's own training changes, and what the federation changes.
    train_rows, test_rows : ndarray
        Rows of each client.
    lower_is_better : bool
        Whether the metric improves downwards.
    named : bool
        Whether a column is the same client under each seed; made-up partitions are dealt anew.
    divergence : float or None
        Mean divergence of the clients' labels from everybody's (`label_divergence`).
    improving : float
        Share of the clients whose own models still got better when their rounds ended.
    failures : mapping
        Clients that were left out of rounds, and why.
    """

    metric: str
    clients: tuple[str, ...]
    federated: Values
    local: Values
    train_rows: Values
    test_rows: Values
    central: Values | None = None
    unprotected: Values | None = None
    alignment: Values | None = None
    lower_is_better: bool = False
    named: bool = True
    divergence: float | None = None
    improving: float = 0.0
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_share(self) -> bool:
        """Whether the metric lies between 0 and 1, and differences of it are points."""
        return self.metric in SHARES

    @property
    def margin(self) -> float:
        """The least difference that counts."""
        return least_gain(self.metric, self.local)

    def gain(self, over: Values, of: Values) -> Values:
        """Return how much better `of` is than `over`, whichever way the metric improves."""
        return over - of if self.lower_is_better else of - over

    def interval(self, gains: Values, *, comparisons: int = 1, resolution: float = 0.0) -> Interval:
        """Return the interval of some gains; those of shares stay between -1 and 1."""
        found = interval(gains, comparisons=comparisons, resolution=resolution)
        return found.within(-1.0, 1.0) if self.is_share else found

    def level(self, values: Values) -> Interval:
        """Return the interval of some values themselves; shares stay between 0 and 1."""
        found = interval(values)
        return found.within(0.0, 1.0) if self.is_share else found

    def amount(self, value: float) -> str:
        """Return a difference in words."""
        return f"{100 * value:+.1f} points" if self.is_share else f"{value:+.3f}"


@dataclass(frozen=True)
class ClientVerdict:
    """What the comparison means for one client.

    Attributes
    ----------
    effect : str
        ``gains``, ``neutral``, ``loses``, or ``unclear`` where it has too few rows.
    warning : str
        What is odd about it; empty if nothing is.
    """

    name: str
    effect: str
    gain: Interval
    federated: Interval
    local: Interval
    central: Interval | None
    train_rows: int
    test_rows: int
    warning: str = ""


def judge_clients(evidence: Evidence) -> list[ClientVerdict]:
    """Judge every client by its own interval over the seeds, all of them to hold together."""
    warnings = odd_clients(evidence)
    return [_judge(evidence, i, warnings) for i in range(len(evidence.clients))]


def _judge(evidence: Evidence, i: int, warnings: Mapping[str, str]) -> ClientVerdict:
    name = evidence.clients[i]
    gains = evidence.gain(evidence.local, evidence.federated)
    finest = 1 / max(float(evidence.test_rows[i]), 1.0) if evidence.is_share else 0.0
    gain = evidence.interval(gains[:, [i]], comparisons=len(evidence.clients), resolution=finest)
    tiny = evidence.train_rows[i] < FEWEST_TRAIN or evidence.test_rows[i] < FEWEST_TEST
    unclear = tiny or not gain.known
    return ClientVerdict(
        name,
        "unclear" if unclear else effect_of(gain, evidence.margin),
        gain,
        evidence.level(evidence.federated[:, [i]]),
        evidence.level(evidence.local[:, [i]]),
        None if evidence.central is None else evidence.level(evidence.central[:, [i]]),
        int(evidence.train_rows[i]),
        int(evidence.test_rows[i]),
        warnings.get(name, ""),
    )


def effect_of(gain: Interval, margin: float) -> str:
    """Return ``gains`` or ``loses`` where the interval excludes zero and the mean is no trifle."""
    if gain.above(0) and gain.mean >= margin:
        return "gains"
    if gain.below(0) and gain.mean <= -margin:
        return "loses"
    return "neutral"


def odd_clients(evidence: Evidence) -> dict[str, str]:
    """Return clients whose data deserve a look, and why."""
    odd: dict[str, list[str]] = {}
    sign = -1.0 if evidence.lower_is_better else 1.0
    scores = client_means(sign * evidence.federated)
    badly = outlying_low(scores, _BADLY_SERVED * evidence.margin)
    astray = np.zeros(len(scores), dtype=bool)
    if evidence.alignment is not None:
        astray = outlying_low(client_means(evidence.alignment), _ASTRAY)
    for i, name in enumerate(evidence.clients):
        found = odd.setdefault(name, [])
        if evidence.train_rows[i] < FEWEST_TRAIN or evidence.test_rows[i] < FEWEST_TEST:
            found.append(
                f"only {evidence.train_rows[i]:.0f} training and {evidence.test_rows[i]:.0f} "
                "held-out rows, too few to judge"
            )
        if astray[i]:
            found.append("its own training leads away from everybody's: check its labels")
        elif badly[i]:
            found.append("the shared model serves it far worse than the others: check its data")
    for name, reason in evidence.failures.items():
        odd.setdefault(name, []).append(f"was left out of rounds ({reason})")
    return {name: "; ".join(found) for name, found in odd.items() if found}


def client_means(values: Values) -> Values:
    """Return each column's mean over the seeds; NaN where it has no value."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(0)
    count = known.sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
