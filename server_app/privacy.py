"""What a run's privacy has cost its clients so far, by what they said they released."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import ConfigRecord, Message

from conf.schema import Settings
from server_app.federation.validation import InvalidAnswerError
from task.privacy.accounting import ACCOUNTANT, RELATION, Spend, epsilon
from task.privacy.policy import mechanism_of

ASSUMPTIONS = (
    "numbers of rows are public; training losses are not sent; held-out rows, on which models are "
    "evaluated, are not protected; statistics are told only of what task.scaling needs"
)


class Account:
    """The privacy ledger of a run, as its server sees it.

    Parameters
    ----------
    settings : Settings
        Of the run.

    Raises
    ------
    FedproofError
        If the privacy settings are wrong.
    """

    def __init__(self, settings: Settings) -> None:
        self._mechanism = mechanism_of(settings)
        self._spends: dict[str, list[Spend]] = {}
        self._ledgers: dict[str, float] = {}

    def check(self, content: Mapping[str, Any]) -> None:
        """Refuse an answer that does not say what it cost, where it must.

        Raises
        ------
        InvalidAnswerError
            Then.
        """
        if self._mechanism is not None:
            _spend_of(content)

    def add(self, answers: Iterable[tuple[str, Message]]) -> dict[str, Any]:
        """Count the answers of a round; return a line's part on privacy, empty without any."""
        if self._mechanism is None:
            return {}
        for client, reply in answers:
            self._spends.setdefault(client, []).append(_spend_of(reply.content))
            cost = reply.content["privacy"].get("ledger-epsilon")
            if isinstance(cost, float) and math.isfinite(cost):
                self._ledgers[client] = cost
        return {"privacy": self._facts()}

    def summary(self) -> dict[str, Any]:
        """Return a summary's part on privacy, empty without any."""
        if self._mechanism is None:
            return {}
        return {"privacy": {**self._facts(), "assumptions": ASSUMPTIONS}}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        spends = {c: [[s.sigma, s.rate, s.steps] for s in all_] for c, all_ in self._spends.items()}
        return {"spends": spends, "ledgers": self._ledgers}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._spends = {c: [Spend(*s) for s in all_] for c, all_ in state["spends"].items()}
        self._ledgers = dict(state["ledgers"])

    def _facts(self) -> dict[str, Any]:
        assert self._mechanism is not None
        delta = self._mechanism.delta
        costs = {client: epsilon(spends, delta) for client, spends in self._spends.items()}
        return {
            "unit": self._mechanism.unit,
            "relation": RELATION,
            "accountant": ACCOUNTANT,
            "delta": delta,
            "epsilon": {client: round(cost, 4) for client, cost in sorted(costs.items())},
            "epsilon_most": round(max(costs.values(), default=0.0), 4),
            "ledger_epsilon": {c: round(v, 4) for c, v in sorted(self._ledgers.items())},
        }


def _spend_of(content: Mapping[str, Any]) -> Spend:
    record = content.get("privacy")
    values = [record.get(k) for k in ("sigma", "rate")] if isinstance(record, ConfigRecord) else []
    numbers = [value for value in values if isinstance(value, float) and 0 <= value < math.inf]
    if len(numbers) < 2 or numbers[1] > 1:
        raise InvalidAnswerError("its answer does not say what privacy it cost")
    assert isinstance(record, ConfigRecord)
    steps = record.get("steps")
    if type(steps) is not int or steps < 1:
        raise InvalidAnswerError("its answer does not say what privacy it cost")
    return Spend(numbers[0], numbers[1], steps)
