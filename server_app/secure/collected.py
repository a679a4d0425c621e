"""What comes of an exchange whose single answers stay hidden."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from flwr.app import Message, RecordDict
from numpy.typing import NDArray

from server_app.federation.reduction import WEIGHT

Figures = Mapping[str, list[float]]


@dataclass(frozen=True)
class Purpose:
    """What is summed, of whom.

    Attributes
    ----------
    name : str
        A `task.secure.kinds.Kind`; clients refuse all else.
    number : int
        The round.
    cohort : sequence of str
        The clients.
    """

    name: str
    number: int
    cohort: Sequence[str]


@dataclass(frozen=True)
class HiddenSum:
    """The sum of some clients' answers.

    Attributes
    ----------
    clients : list of str
        Whose answers it holds.
    asked : int
        Of how many it could have held them.
    update : float64 array, shape (p,)
        Sum of the updates, each times its weight; empty when there are none.
    figures : mapping of str to list of float
        Sums of all else.
    error : float
        No value of `update` is further from the true sum.
    """

    clients: list[str]
    asked: int
    update: NDArray[np.float64]
    figures: Figures
    error: float

    @property
    def mean_error(self) -> float:
        """No value of the mean of the updates is further from the true mean."""
        weight = self.figures.get(WEIGHT)
        return self.error / weight[0] if weight else 0.0


def implausible(total: HiddenSum, largest: float, heaviest: int, figure: float) -> str:
    """Return why no clients that keep to the rules can have such a sum; empty if they can.

    Parameters
    ----------
    total : HiddenSum
        Of updates, or of figures alone.
    largest : float
        No value of an update is beyond ±largest.
    heaviest : int
        The most that one weighs.
    figure : float
        No figure of one client is beyond ±figure.
    """
    there, (weight, *_) = len(total.clients), total.figures.get(WEIGHT) or [0.0]
    # Written so that NaN is implausible.
    believable = all(
        abs(value) <= there * figure for values in total.figures.values() for value in values
    )
    if total.update.size:
        most = np.abs(total.update).max()
        believable &= there <= weight <= there * heaviest
        believable &= bool(most <= largest * weight + total.error)
    if believable:
        return ""
    return (
        f"no {there} answers of clients that keep to the rules have such a sum: somebody sent "
        "noise, and a hidden sum does not tell who"
    )


@dataclass
class Collected:
    """What came of one exchange.

    Attributes
    ----------
    sums : list of HiddenSum
        One for each group that could be unmasked.
    answers : dict
        What clients answered in clear beside, those whose answer is in a sum.
    failed : dict
        Why clients' answers are in no sum.
    abandoned : list of str
        Why groups have no sum.
    """

    sums: list[HiddenSum] = field(default_factory=list)
    answers: dict[str, RecordDict] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    abandoned: list[str] = field(default_factory=list)


class Tally:
    """What all sums of a run have been like.

    Parameters
    ----------
    secret : bool
        Whether nothing may be told of those of training.
    """

    def __init__(self, *, secret: bool = False) -> None:
        self._secret = secret
        self._smallest: int | None = None
        self._error = 0.0
        self._abandoned = 0

    def add(self, purpose: Purpose, collected: Collected) -> None:
        """Count the sums of one exchange."""
        if self._secret and purpose.name == "train":
            return
        sizes = [len(total.clients) for total in collected.sums]
        known = [] if self._smallest is None else [self._smallest]
        self._smallest = min([*known, *sizes], default=None)
        self._error = max([self._error, *(total.mean_error for total in collected.sums)])
        self._abandoned += len(collected.abandoned)

    def facts(self) -> dict[str, Any]:
        """Return the smallest sum, the largest error of a mean, and how many were abandoned."""
        return {
            "smallest_sum": self._smallest,
            "error": self._error,
            "abandoned": self._abandoned,
        }


Upcoming = Callable[[], Purpose | None]
"""Returns what will be summed next, as far as that is known."""
Check = Callable[[RecordDict], None]
"""Raises `InvalidAnswerError` for an answer that must be in no sum."""


class Collector(Protocol):
    """Exchanges messages for sums of their answers."""

    def facts(self) -> dict[str, Any]:
        """Return what a summary says of all sums so far."""

    def collect(
        self,
        purpose: Purpose,
        messages: Sequence[Message],
        timeout: float,
        upcoming: Upcoming,
        check: Check,
    ) -> Collected:
        """Send clients their messages; return sums of what they answered."""


def anything(content: RecordDict) -> None:
    """Let every answer pass."""
