"""Rounds that came to nothing: sentences that name nobody whose round is secret, and an end."""

from __future__ import annotations

from collections.abc import Mapping

from conf.errors import FedproofError
from conf.schema import Settings
from server_app.privacy.account import Account

MOST_LOST = 3
"""Rounds in a row without a sum that end a run."""


class LostRounds:
    """Counts rounds in a row without a sum.

    Parameters
    ----------
    settings : Settings
        Of the run.
    account : Account
        Knows whether cohorts are secret.
    """

    def __init__(self, settings: Settings, account: Account) -> None:
        self._most = min(MOST_LOST, settings.rounds)
        self._least = settings.federation.min_clients
        self._account = account
        self._lost = 0

    def count(self, number: int, why: str, failed: Mapping[str, str]) -> None:
        """Count a round; `why` is empty if it had a sum.

        Raises
        ------
        FedproofError
            If that was one too many without.
        """
        self._lost = self._lost + 1 if why else 0
        if self._lost == self._most:
            raise FedproofError(
                f"round {number}: the secure sums of {self._lost} rounds in a row were abandoned "
                f"({why.rstrip('.')}; {self._account.reasons(failed)}); resume the run when the "
                "cause is mended."
            )

    def too_few(
        self, number: int, answered: int, asked: int, failed: Mapping[str, str]
    ) -> FedproofError:
        """Return the error of a round that too few answered validly."""
        shares = (
            f"{answered} of the {asked} sampled clients gave a valid answer, "
            f"federation.min_clients={self._least} are needed"
        )
        if self._account.secret:
            shares = "nobody who was drawn gave a valid answer"
        return FedproofError(
            f"round {number}: {shares} ({self._account.reasons(failed)}); resume the run when the "
            "cause is mended."
        )
