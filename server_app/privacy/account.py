"""What a run's privacy has cost its clients so far, by what they said they released."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from conf.errors import FedproofError
from conf.schema import Scaling, Settings
from server_app.federation.reduction import WEIGHT, Reduction
from server_app.federation.roster import Roster
from server_app.federation.validation import InvalidAnswerError, reasons, unnamed
from server_app.secure.collected import HiddenSum
from task.privacy.accounting import ACCOUNTANT, Spend, epsilon
from task.privacy.evaluation import Evaluations
from task.privacy.ledger import is_head
from task.privacy.policy import mechanism_of

HELD_OUT = {
    Evaluations.exact: "held-out rows, on which models are evaluated, are not protected",
    Evaluations.noised: "sums over held-out rows have noise of their own, which ε includes",
    Evaluations.none: "nothing is told of held-out rows",
}
"""What becomes of held-out rows."""
ASSUMPTIONS = {
    "record": "columns and categories that the experiment or a policy declares are public, and "
    "numbers of rows in a simulation (silos noise theirs); training losses are not sent",
    "client": "numbers of rows are public in a simulation (silos do not tell theirs); every client "
    "adds its own noise; training losses are not sent",
}
STANDARDISED = (
    "the means and deviations by which each client standardises its own features are taken as given"
)
"""Changing a record moves them a little, and with them the other records: no ε counts that."""
_LEAST = 1e-9
"""Of noise multipliers and sampling rates that clients may claim; of the rest, the inverse."""
Draw = Callable[[Sequence[str], float], list[str]]
"""Draws so large a share of some clients."""


class Account:
    """What a run costs its clients, by what they said they released.

    Parameters
    ----------
    settings : Settings
        Of the run.

    Attributes
    ----------
    secret : bool
        Whether nobody may know who takes part.
    noises_sums : bool
        Whether the server noises what it tells of a sum; all else that sums hold is not noised.
    foreseeable : bool
        Whether a round's cohort is known before the round before it has ended.

    Raises
    ------
    FedproofError
        If the privacy settings are wrong.
    """

    secret = False
    noises_sums = False
    foreseeable = True

    def __init__(self, settings: Settings) -> None:
        self._privacy = mechanism_of(settings)
        self._standardises = settings.task.scaling is Scaling.local
        self._solved = settings.rounds if settings.privacy.options.get("epsilon") else None
        self._fraction = settings.federation.fraction
        self._min_clients = settings.federation.min_clients
        self._compressed = settings.compression.name != "none"
        self._spends: dict[str, list[Spend]] = {}
        self._evaluations: dict[str, list[Spend]] = {}
        self._ledgers: dict[str, float] = {}
        self._heads: dict[str, str] = {}

    @property
    def exhausted(self) -> bool:
        """Whether no further round is allowed."""
        return False

    def begin(self, run: str, roster: Roster) -> None:
        """Take note of the run's name, and of who is there at its start.

        Raises
        ------
        FedproofError
            If the settings do not fit them.
        """

    def cohort(self, clients: Sequence[str], draw: Draw) -> list[str]:
        """Return who is asked to train."""
        return draw(clients, self._fraction)

    def least(self, asked: int) -> int:
        """Return how many of those who were asked must answer; nobody drawn is no failure."""
        return min(1, asked) if self.secret else self._min_clients

    def reasons(self, failed: Mapping[str, str]) -> str:
        """Return why clients failed, for a sentence that names nobody whose round is secret."""
        return unnamed(failed) if self.secret else reasons(failed)

    def told(self) -> dict[str, float]:
        """Return what clients are told besides."""
        return {}

    def check(self, content: RecordDict) -> None:
        """Refuse an answer that does not say what it cost, where it must.

        Raises
        ------
        InvalidAnswerError
            Then.
        """
        if self._privacy is not None:
            spend_of(content)

    def check_hidden(self, content: RecordDict) -> None:
        """Refuse the same where the answer itself is hidden in a sum."""
        Account.check(self, content)

    def mean(self, total: HiddenSum) -> Tensor:
        """Return the mean of updates that only their sum is known of, shape (p,)."""
        return torch.from_numpy(total.update) / total.figures[WEIGHT][0]

    def mean_of_nobody(self, size: int) -> Tensor:
        """Return what a secret round without a sum releases, so that nobody sees that it had none.

        Parameters
        ----------
        size : int
            Length of an update.
        """
        raise NotImplementedError(f"{type(self).__name__} has no secret rounds: {size}")

    def reduction(self, arrays: ArrayRecord, rows: int) -> Reduction:
        """Return where to add up the models of clients with so many rows."""
        return Reduction(arrays, rows, updates=self._compressed)

    def add(self, answers: Iterable[tuple[str, RecordDict]]) -> dict[str, Any]:
        """Count the answers of a round; return a line's part on privacy, empty without any."""
        if self._privacy is None:
            return {}
        for client, content in answers:
            self._count(client, content)
            self._stands(client, content)
        return {"privacy": self._facts()}

    @property
    def evaluation(self) -> Evaluations:
        """What leaves of the clients' evaluations."""
        return Evaluations.exact if self._privacy is None else self._privacy.evaluation

    @property
    def unit(self) -> str | None:
        """Whom the noise protects; None without any."""
        return None if self._privacy is None else self._privacy.unit

    @property
    def evaluation_sigma(self) -> float | None:
        """Noise multiplier of an evaluation, where it is the same whatever rows a client has."""
        if self._privacy is None or not self._privacy.solves:
            return None
        noise = self._privacy.evaluation_noise("", 0)
        return None if noise is None else noise.sigma

    def evaluated(self, answers: Iterable[tuple[str, RecordDict]]) -> dict[str, Any]:
        """Count noised evaluations; return a line's part on privacy."""
        for client, content in answers:
            spend = spend_of(content)
            self._spends.setdefault(client, []).append(spend)
            self._evaluations.setdefault(client, []).append(spend)
            self._stands(client, content)
        return {"privacy": self._facts()}

    def _stands(self, client: str, content: RecordDict) -> None:
        """Take note of what a client says that its ledger stands at."""
        cost = content["privacy"].get("ledger-epsilon")
        if isinstance(cost, float) and math.isfinite(cost):
            self._ledgers[client] = cost
        head = content["privacy"].get("ledger-head")
        if isinstance(head, str) and is_head(head):
            self._heads[client] = head

    def _count(self, client: str, content: RecordDict) -> None:
        self._spends.setdefault(client, []).append(spend_of(content))

    def summary(self) -> dict[str, Any]:
        """Return a summary's part on privacy, empty without any."""
        if self._privacy is None:
            return {}
        assumptions = f"{self._assumptions()}; {HELD_OUT[self.evaluation]}"
        return {"privacy": {**self._facts(), "assumptions": assumptions}}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        spends = {c: [astuple(s) for s in all_] for c, all_ in self._spends.items()}
        evaluations = {c: [astuple(s) for s in all_] for c, all_ in self._evaluations.items()}
        return {
            "spends": spends, "evaluations": evaluations, "ledgers": self._ledgers,
            "heads": self._heads, "solved": self._solved,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        FedproofError
            If the noise was solved for another number of rounds.
        """
        if state["solved"] != self._solved:
            raise FedproofError(
                f"privacy.epsilon was solved for {state['solved']} rounds: resume with that many, "
                "or start a run with privacy.sigma."
            )
        self._spends = {c: [Spend(*s) for s in all_] for c, all_ in state["spends"].items()}
        told = state["evaluations"].items()
        self._evaluations = {c: [Spend(*s) for s in all_] for c, all_ in told}
        self._ledgers, self._heads = dict(state["ledgers"]), dict(state.get("heads", {}))

    def _assumptions(self) -> str:
        assert self._privacy is not None
        unit = self._privacy.unit
        given = [STANDARDISED] if self._standardises and unit == "record" else []
        return "; ".join([*given, ASSUMPTIONS[unit]])

    def evaluation_facts(self) -> dict[str, Any]:
        """Return a summary's part on evaluation: what left, and what it cost."""
        facts: dict[str, Any] = {"kind": str(self.evaluation), "says": HELD_OUT[self.evaluation]}
        if self._privacy is not None and self.evaluation is Evaluations.noised:
            delta, spends = self._privacy.delta, self._evaluations.values()
            facts["evaluations"] = max(map(len, spends), default=0)
            facts["sigma"] = min((s.sigma for each in spends for s in each), default=None)
            facts["epsilon"] = round(max((epsilon(each, delta) for each in spends), default=0.0), 4)
        return facts

    def _costs(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return the ε of this run, and of all that is in the ledgers."""
        assert self._privacy is not None
        delta = self._privacy.delta
        costs = {client: epsilon(spends, delta) for client, spends in self._spends.items()}
        return costs, self._ledgers

    def _facts(self) -> dict[str, Any]:
        privacy = self._privacy
        assert privacy is not None
        costs, ledgers = self._costs()
        facts = {
            "unit": privacy.unit,
            "relation": privacy.relation,
            "accountant": ACCOUNTANT,
            "delta": privacy.delta,
            "epsilon": {client: round(cost, 4) for client, cost in sorted(costs.items())},
            "epsilon_most": round(max(costs.values(), default=0.0), 4),
            "ledger_epsilon": {c: round(v, 4) for c, v in sorted(ledgers.items())},
        }
        if self._heads:
            facts["ledger_heads"] = dict(sorted(self._heads.items()))
        if math.isfinite(privacy.max_epsilon):
            facts["max_epsilon"] = privacy.max_epsilon
        return facts


def spend_of(content: Mapping[str, Any]) -> Spend:
    """Return what an answer says that it released.

    Raises
    ------
    InvalidAnswerError
        If it does not say so, or nothing costs that.
    """
    record = content.get("privacy")
    if not isinstance(record, ConfigRecord):
        raise InvalidAnswerError("its answer does not say what privacy it cost")
    sigma, rate, steps = (record.get(key) for key in ("sigma", "rate", "steps"))
    # What an accountant could not add up would end the run of all.
    if (
        not (isinstance(sigma, float) and (sigma == 0 or _LEAST <= sigma <= 1 / _LEAST))
        or not (isinstance(rate, float) and _LEAST <= rate <= 1)
        or not (type(steps) is int and 1 <= steps <= 1 / _LEAST)
    ):
        raise InvalidAnswerError("its answer says that it cost a privacy that nothing costs")
    return Spend(sigma, rate, steps)
