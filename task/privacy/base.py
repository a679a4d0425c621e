"""What a privacy mechanism is to the rest: its settings, what it costs, what a client does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from conf.errors import FedproofError
from conf.schema import Settings
from task.disclosure import told_sums
from task.options import INFINITY, real
from task.privacy.accounting import RELATION, Spend, solve_sigma


class Released(Protocol):
    """What a client does in a round, as far as its ledger is concerned."""

    @property
    def clip(self) -> float:
        """Norm of what is noised."""

    @property
    def spend(self) -> Spend:
        """What leaves."""


class Privacy(ABC):
    """Settings of one ``privacy=``, checked.

    Parameters
    ----------
    settings : Settings
        With ``privacy.sigma`` or ``privacy.epsilon``, ``delta`` and ``max_epsilon``.

    Attributes
    ----------
    unit : str
        Whom the noise protects.
    relation : str
        What neighbouring data sets differ in.
    delta : float
        Of every ε.
    max_epsilon : float
        What a client's ledger may not pass.
    sampled : bool
        Whether a client shares the cost of rounds for which it was not drawn, in secret.
    separation : int
        Fewest rounds from one participation of a client to its next.

    Raises
    ------
    FedproofError
        If the settings cannot protect anybody, or the run tells what no noise protects.
    """

    unit: ClassVar[str]
    relation = RELATION
    sampled = False
    separation = 1

    def __init__(self, settings: Settings) -> None:
        options: Mapping[str, Any] = settings.privacy.options
        name = settings.privacy.name
        given = [key for key in ("sigma", "epsilon") if options[key] is not None]
        if len(given) != 1:
            raise FedproofError(
                f"privacy={name} needs either privacy.sigma, the noise multiplier, or "
                f"privacy.epsilon, what all rounds may cost: {len(given)} of them are given."
            )
        self._value = real(options, f"privacy.{given[0]}", positive=True)
        self._solves = given[0] == "epsilon"
        self._quantile = quantile(options)
        self.delta = real(options, "privacy.delta", positive=True, below=1.0)
        self.max_epsilon = INFINITY
        if options["max_epsilon"] is not None:
            self.max_epsilon = real(options, "privacy.max_epsilon", positive=True)
        if told := told_sums(settings.task):
            raise FedproofError(f"privacy={name} does not noise what is told beforehand; {told}.")

    @property
    def adapts(self) -> bool:
        """Whether the clip follows a quantile."""
        return self._quantile is not None

    @abstractmethod
    def mechanism(self, client: str, rows: int) -> Released:
        """Return what a client with so many training rows does in a round.

        Raises
        ------
        FedproofError
            If the settings do not fit it.
        """

    @abstractmethod
    def over(self, rounds: int, client: str, rows: int) -> Spend:
        """Return what so many rounds cost a client that takes part as often as may be.

        Raises
        ------
        FedproofError
            If the settings do not fit it.
        """

    def _noise(self, rate: float, steps: int) -> float:
        """Return the noise multiplier for so many steps at a sampling rate.

        Raises
        ------
        FedproofError
            If no noise is enough for ``privacy.epsilon``.
        """
        if not self._solves:
            return self._value
        try:
            return solve_sigma(self._value, self.delta, rate, steps)
        except ValueError as error:
            raise FedproofError(f"privacy.epsilon={self._value:g}: {error}.") from None


def quantile(options: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return ``privacy.quantile`` and ``clip_lr``; None if the clip stays.

    Raises
    ------
    FedproofError
        If they are out of range.
    """
    if "quantile" not in options:
        return None
    lr = real(options, "privacy.clip_lr", positive=True)
    if options["quantile"] is None:
        return None
    return real(options, "privacy.quantile", positive=True, below=1.0), lr


def below_share(delta: float, count: int, of_what: str) -> None:
    """Refuse a δ of at least 1 / count: with it, one of them may be told outright.

    Raises
    ------
    FedproofError
        Then.
    """
    if count and delta >= 1 / count:
        raise FedproofError(
            f"privacy.delta={delta:g} must be below 1 / {of_what} = {1 / count:.3g}: or one of "
            "them may be told outright."
        )
