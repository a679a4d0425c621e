"""What the mechanisms' settings have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conf.errors import FedproofError
from conf.schema import Scaling, Settings
from task.options import INFINITY, real
from task.privacy.accounting import solve_sigma


class Budget:
    """How much noise, for which ε.

    Parameters
    ----------
    settings : Settings
        With ``privacy.sigma`` or ``privacy.epsilon``, ``delta`` and ``max_epsilon``.

    Attributes
    ----------
    delta : float
        Of every ε.
    max_epsilon : float
        What a client's ledger may not pass.

    Raises
    ------
    FedproofError
        If they are missing, impossible, or the run tells what no noise protects.
    """

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
        self.delta = real(options, "privacy.delta", positive=True, below=1.0)
        self.max_epsilon = INFINITY
        if options["max_epsilon"] is not None:
            self.max_epsilon = real(options, "privacy.max_epsilon", positive=True)
        if settings.task.scaling is Scaling.federated:
            raise FedproofError(
                "task.scaling=federated tells sums over records without noise, which "
                f"privacy={name} does not allow: choose task.scaling=local."
            )

    def sigma(self, rate: float, steps: int) -> float:
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
