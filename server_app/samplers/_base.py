"""What samplers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import FedproofError
from conf.schema import Settings
from task.privacy.client_dp import ClientDP
from task.privacy.policy import mechanism_of
from task.seeding import generator


class Sampler(ABC):
    """Draws the cohorts that train; a function of seed, round, clients and what it has learnt.

    Parameters
    ----------
    settings : Settings
        Of the run.
    """

    def __init__(self, settings: Settings) -> None:
        self._seed = settings.seed

    @abstractmethod
    def draw(
        self, rows: Mapping[str, int], fraction: float, number: int, attempt: int
    ) -> list[str]:
        """Return a cohort, sorted.

        Parameters
        ----------
        rows : mapping of str to int
            Who may be drawn, and their training rows.
        fraction : float
            Share of them to draw.
        number, attempt : int
            The round, and how often it was tried before.
        """

    def weights(self, rows: Mapping[str, int], cohort: Sequence[str]) -> dict[str, int] | None:
        """Return what each client of a cohort counts; None: its rows.

        Parameters
        ----------
        rows : mapping of str to int
            Training rows of all clients.
        cohort : sequence of str
            Who was asked.
        """
        return None

    def learn(self, losses: Mapping[str, float]) -> None:  # noqa: B027
        """Take note of the mean losses on training rows that clients answered."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, JSON-able."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Go on from a checkpoint."""

    def _ordered(self, clients: Mapping[str, float], size: int, *labels: str | int) -> list[str]:
        """Draw without replacement, each draw in proportion to the clients' positive weights."""
        names = sorted(clients)
        weights = np.array([clients[name] for name in names], np.float64)
        chance = generator(self._seed, "sample", *labels)
        return [names[i] for i in exponential_race(weights, chance)[:size]]


def exponential_race(weights: NDArray[np.float64], chance: np.random.Generator) -> list[int]:
    """Return places in the order of successive draws without replacement.

    The first arrivals of exponential clocks at these rates (Efraimidis and Spirakis 2006).
    """
    arrivals = chance.exponential(size=len(weights)) / weights
    return [int(i) for i in np.argsort(arrivals, kind="stable")]


def require_no_secret(settings: Settings) -> None:
    """Refuse a way of sampling where privacy rests on another.

    Raises
    ------
    FedproofError
        If cohorts are secret Poisson samples.
    """
    privacy = mechanism_of(settings)
    if isinstance(privacy, ClientDP) and privacy.central and privacy.sampled:
        raise FedproofError(
            f"sampling={settings.sampling.name} does not go with privacy=client_dp, whose cohorts "
            "are secret Poisson samples that amplify privacy: leave sampling= out."
        )


def require_seen(settings: Settings, what: str) -> None:
    """Refuse a way of sampling that looks at what sums hide.

    Raises
    ------
    FedproofError
        Then.
    """
    if settings.aggregation.name != "none":
        raise FedproofError(
            f"sampling={settings.sampling.name} looks at each client's {what}, which aggregation="
            f"{settings.aggregation.name} hides: leave sampling= out."
        )
