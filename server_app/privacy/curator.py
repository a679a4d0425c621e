"""The server's part in client-level privacy: cohorts, noise on sums, and what both cost."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from torch import Tensor

from conf.errors import FedproofError
from conf.schema import Settings
from server_app.federation.reduction import WEIGHT, Reduction
from server_app.federation.roster import Roster
from server_app.federation.validation import InvalidAnswerError
from server_app.privacy.account import Account, Draw, spend_of
from server_app.privacy.distributed import DistributedAccount
from server_app.privacy.noised import ROUNDING, NoisedMean, norm_of
from server_app.secure.collected import HiddenSum
from task.privacy.accounting import Spend, epsilon
from task.privacy.base import below_share
from task.privacy.client_dp import ClientDP
from task.privacy.correlated import NOISES
from task.privacy.distributed_dp import DistributedDP
from task.privacy.ledger import Entry, Ledger
from task.privacy.noise import SecureNoise
from task.privacy.policy import mechanism_of
from task.wire import records

LEDGER = "population.jsonl"
"""The server's own ledger: what every client's data was used for, whoever was drawn."""
EVERYONE = "every client"
_TRUST = (
    "numbers of rows are public in a simulation (silos tell weights of updates); the server adds "
    "the noise and is trusted with single updates; "
    "training losses are not recorded"
)
_SECRET = (
    "who was drawn is not recorded, nor the bytes of training, which would tell how many; who "
    "watches traffic or clock is not considered"
)
_HOUR = 3600


def account_of(settings: Settings, directory: Path, *, sum_suffices: bool) -> Account:
    """Return what a run's server does for privacy.

    Raises
    ------
    FedproofError
        If the privacy settings are wrong, or do not go with the strategy.
    """
    privacy = mechanism_of(settings)
    if isinstance(privacy, DistributedDP):
        return DistributedAccount(settings, privacy)
    if not isinstance(privacy, ClientDP) or not privacy.central:
        return Account(settings)
    if not sum_suffices:
        raise FedproofError(
            f"privacy=client_dp noises the sum of updates, and strategy={settings.strategy.name} "
            "looks at each of them: choose privacy.placement=local, or a strategy of means."
        )
    return Curator(settings, privacy, directory)


class Curator(Account):
    """Adds the noise, and keeps cohorts secret where that is what amplifies privacy.

    Parameters
    ----------
    settings : Settings
        Of the run.
    privacy : ClientDP
        Central.
    directory : Path
        Where the ledger is.
    """

    noises_sums = True

    def __init__(self, settings: Settings, privacy: ClientDP, directory: Path) -> None:
        super().__init__(settings)
        self._client_dp = privacy
        self._ledger = Ledger(directory / LEDGER)
        self._clip = privacy.clip
        self._noise = NOISES[privacy.noise](privacy.separation)
        self._recent: list[tuple[list[str], bool]] = []
        self._asked: list[str] = []
        self._released = False
        self._count_noise = SecureNoise()
        self.secret = privacy.sampled
        self.foreseeable = False

    def begin(self, run: str, roster: Roster) -> None:
        """Fix whom the noise is for: the clients that are there at the start."""
        clients = roster.trainable
        below_share(self._client_dp.delta, len(clients), "clients")
        self._run = run
        self._expected = self._fraction * len(clients)
        weights = (self._client_dp.weight(roster.members[client].train) for client in clients)
        self._whole = self._fraction * sum(weights)

    @property
    def exhausted(self) -> bool:
        """Whether one more round would cost more than the run's ``max_epsilon``."""
        privacy = self._client_dp
        if not self.secret or privacy.max_epsilon == math.inf:
            return False
        spends = [*(entry.spend for entry in self._ledger.entries()), privacy.over(1)]
        return epsilon(spends, privacy.delta) > privacy.max_epsilon

    def cohort(self, clients: Sequence[str], draw: Draw) -> list[str]:
        """Return who is asked to train: a Poisson sample from the system's randomness, if secret.

        With correlated noise, those of the last releases rest, as ``privacy.separation`` says.
        Where abandoned rounds leave nobody, the noise starts anew, and hides all that comes alone.
        """
        if self.secret:
            chance = secrets.SystemRandom()
            return [client for client in clients if chance.random() < self._client_dp.rate]
        rested = self._rested(clients)
        if not rested:
            self._restart()
            rested = self._rested(clients)
        if not rested:
            raise FedproofError(
                "all clients took part in the last rounds: lower privacy.separation or "
                "federation.fraction."
            )
        self._asked = draw(rested, min(1.0, self._fraction * len(clients) / len(rested)))
        return self._asked

    def _rested(self, clients: Sequence[str]) -> list[str]:
        resting = {client for cohort, _ in self._recent for client in cohort}
        return [client for client in clients if client not in resting]

    def _restart(self) -> None:
        """Start another sequence of noise, independent of all before.

        Those of the last rounds rest nevertheless: their own ledgers keep them out.
        """
        self._noise = NOISES[self._client_dp.noise](self._client_dp.separation)
        rest = self._client_dp.separation - 1
        self._recent = self._recent[max(0, len(self._recent) - rest) :]

    def told(self) -> dict[str, float]:
        """Return what clients are told besides: the clip."""
        return {"clip": self._clip}

    def check(self, content: RecordDict) -> None:
        """Refuse an update that is longer than the clip, or weighs too much.

        Raises
        ------
        InvalidAnswerError
            Then.
        """
        super().check(content)
        for arrays in records(content, ArrayRecord):
            if not norm_of(arrays) <= self._clip * (1 + ROUNDING):
                raise InvalidAnswerError("its update is longer than the clip")
        for metrics in records(content, MetricRecord):
            weight = metrics.get(WEIGHT)
            if metrics.get("unclipped") not in (0, 1) or not isinstance(weight, int):
                raise InvalidAnswerError("its answer does not say whether it was clipped")
            if weight > self._client_dp.max_weight:
                raise InvalidAnswerError(f"it weighs {weight}, more than privacy.max_rows")

    def mean(self, total: HiddenSum) -> Tensor:
        """Return the noised mean of clipped updates."""
        unclipped = round(total.figures["unclipped"][0])
        return self._release(torch.from_numpy(total.update), unclipped, len(total.clients))

    def mean_of_nobody(self, size: int) -> Tensor:
        """Return noise alone: whether there were enough clients for a sum is no more to be seen."""
        return self._release(torch.zeros(size, dtype=torch.float64), 0, 0)

    def reduction(self, arrays: ArrayRecord, rows: int) -> Reduction:
        """Return where clipped updates are added up, and noised."""
        del rows
        longest = self._clip * self._client_dp.max_weight
        weight = max(1.0, self._whole / self._fraction)
        return NoisedMean(arrays, weight, self._clip, longest, self._release)

    def add(self, answers: Iterable[tuple[str, RecordDict]]) -> dict[str, Any]:
        """Count a round; return a line's part on privacy."""
        if self.secret:
            return super().add(())
        known = list(answers)
        # Who was asked in vain may have written that down, and would refuse.
        cohort = [client for client, _ in known] if self._released else self._asked
        self._recent = _latest(
            [*self._recent, (cohort, self._released)], self._client_dp.separation - 1
        )
        self._released = False
        return super().add(known)

    def evaluated(self, answers: Iterable[tuple[str, RecordDict]]) -> dict[str, Any]:
        """Count noised evaluations; where cohorts are secret, of everybody alike.

        What a client says that its ledger stands at would tell in how many rounds it was drawn.
        """
        if not self.secret:
            return super().evaluated(answers)
        spends = [spend_of(content) for _, content in answers]
        if spends:
            spent = min(spends, key=lambda spend: spend.sigma)
            self._write(spent, {"kind": "evaluation"})
            self._evaluations.setdefault(EVERYONE, []).append(spent)
        return {"privacy": self._facts()}

    def _write(self, spend: Spend, facts: Mapping[str, Any]) -> None:
        """Write down what was released of everybody."""
        # To the hour: from second to second it would tell how long a round took.
        when = round(time.time()) // _HOUR * _HOUR
        told = {"run": self._run, **facts, "time": when}
        self._ledger.spend(Entry(self._client_dp.unit, spend, told), lambda _: None)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {**super().state(), "clip": self._clip, "recent": self._recent}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; the ledger knows more, if rounds were lost.

        Rounds that were lost may have been seen, with noise that took some of the earlier back. To
        take back the same once more would show it: the noise starts anew.
        """
        super().restore(state)
        self._clip = state["clip"]
        self._recent = [(list(cohort), bool(released)) for cohort, released in state["recent"]]

    def _release(self, total: Tensor, unclipped: int, answered: int) -> Tensor:
        """Return the noised mean of a round's updates, after it was written down.

        Parameters
        ----------
        total : Tensor of float64, shape (p,)
            Weighted sum of clipped updates.
        unclipped, answered : int
            How many did not exceed the clip, and how many there are.
        """
        privacy = self._client_dp
        if self.secret:
            self._write(privacy.over(1), {"clip": self._clip})
        self._released = True
        adaptive = privacy.adaptive(self._expected)
        sigma = adaptive.sigma_sum if adaptive else privacy.sigma
        # As long as `check` and `NoisedMean` let an update be.
        deviation = sigma * self._clip * privacy.max_weight * (1 + ROUNDING)
        noise = self._noise.next(len(total), deviation)
        if adaptive:
            self._clip = adaptive.updated(self._clip, unclipped - answered / 2, self._count_noise)
        return (self._noise.rounded(total, deviation) + noise) / self._whole

    def _costs(self) -> tuple[dict[str, float], dict[str, float]]:
        if not self.secret:
            return super()._costs()
        entries, delta = self._ledger.entries(), self._client_dp.delta
        mine = epsilon([e.spend for e in entries if e.facts["run"] == self._run], delta)
        return {EVERYONE: mine}, {EVERYONE: epsilon([e.spend for e in entries], delta)}

    def _facts(self) -> dict[str, Any]:
        facts = {"sigma": self._client_dp.sigma, "clip": self._clip, "secret": self.secret}
        return super()._facts() | facts

    def _assumptions(self) -> str:
        return "; ".join([_TRUST, *([_SECRET] if self.secret else [])])


def _latest(cohorts: list[tuple[list[str], bool]], count: int) -> list[tuple[list[str], bool]]:
    """Return the last cohorts that were released, so many, and of the last so many the others."""
    kept: list[tuple[list[str], bool]] = []
    left = count
    for age, (cohort, released) in enumerate(reversed(cohorts)):
        left -= released
        if left < 0:
            break
        if released or age < count:
            kept.insert(0, (cohort, released))
    return kept
