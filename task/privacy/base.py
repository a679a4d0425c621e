"""What a privacy mechanism is to the rest: its settings, what it costs, what a client does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from conf.errors import FedproofError
from conf.schema import Select, Settings
from task.disclosure import told_sums
from task.options import INFINITY, choice, real
from task.privacy.accounting import RELATION, Spend, epsilon, gaussian_sigma, solve_beside
from task.privacy.evaluation import EvaluationNoise, Evaluations


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
    solves : bool
        Whether noise follows from ``privacy.epsilon``.
    evaluation : Evaluations
        What leaves of an evaluation.
    evaluations : int
        That a run plans, and a client answers at most, if they are noised.

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
        self.solves = given[0] == "epsilon"
        self._quantile = quantile(options)
        self.delta = real(options, "privacy.delta", positive=True, below=1.0)
        self.max_epsilon = INFINITY
        if options["max_epsilon"] is not None:
            self.max_epsilon = real(options, "privacy.max_epsilon", positive=True)
        self.evaluation = Evaluations(choice(options, "privacy.evaluation", tuple(Evaluations)))
        self._share = real(options, "privacy.evaluation_share", positive=True, below=1.0)
        self.evaluations = -(-settings.rounds // settings.evaluate_every)
        self._planned = settings.rounds
        _require_evaluated(settings, self.evaluation)
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

    def evaluation_noise(self, client: str, rows: int) -> EvaluationNoise | None:
        """Return what protects each evaluation of a client with so many training rows, if any.

        All planned evaluations together, taken alone, cost ``privacy.evaluation_share`` of
        ``privacy.epsilon``, or of what the planned training alone costs where ``privacy.sigma`` is
        given.

        Raises
        ------
        FedproofError
            If the settings do not fit it.
        """
        if self.evaluation is not Evaluations.noised:
            return None
        whole = self._value
        if not self.solves:
            whole = epsilon([self.over(self._planned, client, rows)], self.delta)
        sigma = gaussian_sigma(self._share * whole, self.delta, self.evaluations)
        return EvaluationNoise(sigma, per_client=self.unit == "client")

    def planned(self, client: str, rows: int) -> list[Spend]:
        """Return what all planned rounds and noised evaluations cost a client.

        Raises
        ------
        FedproofError
            If the settings do not fit it.
        """
        training = self.over(self._planned, client, rows)
        noise = self.evaluation_noise(client, rows)
        return [training, *([] if noise is None else [noise.spend] * self.evaluations)]

    def weight(self, rows: int) -> int:
        """Return what an update from so many training rows weighs: all the same, if there are any.

        At client level it is all that is told of them.
        """
        return min(rows, 1)

    def _noise(self, rate: float, steps: int) -> float:
        """Return the noise multiplier for so many steps at a sampling rate.

        Planned evaluations that are noised are paid from the same ``privacy.epsilon``.

        Raises
        ------
        FedproofError
            If no noise is enough for ``privacy.epsilon``.
        """
        if not self.solves:
            return self._value
        beside: tuple[Spend, ...] = ()
        if self.evaluation is Evaluations.noised:
            sigma = gaussian_sigma(self._share * self._value, self.delta, self.evaluations)
            beside = (Spend(sigma, 1.0, self.evaluations),)
        try:
            return solve_beside(self._value, self.delta, rate, steps, beside)
        except ValueError as error:
            raise FedproofError(f"privacy.epsilon={self._value:g}: {error}.") from None


def _require_evaluated(settings: Settings, evaluation: Evaluations) -> None:
    """Refuse what needs figures that ``privacy.evaluation`` does not let out.

    Raises
    ------
    FedproofError
        Then.
    """
    goes_by_them = settings.stop.patience or settings.select is Select.best
    if evaluation is Evaluations.none and goes_by_them:
        raise FedproofError(
            "privacy.evaluation=none tells nothing of held-out rows, and stop.patience and "
            "select=best go by them: leave those out, or choose privacy.evaluation=noised."
        )
    if evaluation is not Evaluations.exact and settings.compare:
        raise FedproofError(
            "compare=true tells exact figures of single clients' held-out rows: leave it out, or, "
            f"in a simulation, take privacy.evaluation=exact in place of {evaluation}."
        )


def secret_cohorts(settings: Settings) -> bool:
    """Tell whether who takes part is secret: that is what amplifies central, independent noise."""
    options = settings.privacy.options
    return (
        settings.privacy.name == "client_dp"
        and options.get("placement") == "central"
        and options.get("noise") == "independent"
    )


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
