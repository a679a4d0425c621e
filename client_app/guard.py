"""What may leave a client: its policy, its mechanism, and its ledger decide together."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from flwr.app import ConfigRecord

from client_app.request import Request
from client_app.site import Site
from conf.errors import FedproofError
from task.privacy.accounting import Spend
from task.privacy.base import Privacy, Released
from task.privacy.client_dp import ClippedUpdate
from task.privacy.distributed_dp import DistributedDP
from task.privacy.evaluation import EvaluationNoise
from task.privacy.ledger import Entry, Ledger
from task.privacy.policy import mechanism_of
from task.refusals import Refusal, RefusalError
from task.secagg.seat import Seat
from task.secure.kinds import Kind

EVALUATION = "evaluation"
"""Of a ledger's line: what was released is sums over held-out rows."""
_MOST_ADAPTED = 1e6
"""Times the first clip, and of the first clip, that an adapted one may be."""


@dataclass(frozen=True)
class Moment:
    """Which round a client is asked for.

    Attributes
    ----------
    run : str
        Flower's id of the run; a run that is resumed has another.
    start : int
        Rounds that were done before that.
    number : int
        Of the round.
    """

    run: str
    start: int
    number: int

    @classmethod
    def of(cls, request: Request) -> Self:
        """Read a request.

        What a run had done when it was resumed, only a simulation is believed: a silo that was
        told of more would account for less.
        """
        resumed = request.lineage if request.simulated else ()
        return cls(request.run, resumed[-1][1] if resumed else 0, request.number)


@dataclass(frozen=True)
class Charged:
    """A mechanism whose cost is in the ledger.

    Attributes
    ----------
    mechanism : Released
        How the client protects itself.
    record : ConfigRecord
        What the server is told of it.
    """

    mechanism: Released
    record: ConfigRecord


class Guard:
    """The privacy of one node's clients in one run.

    Parameters
    ----------
    site : Site
        Its settings, policy, and folder with one ledger per client.

    Raises
    ------
    FedproofError
        If the privacy settings are wrong.
    """

    def __init__(self, site: Site) -> None:
        self._policy = site.policy
        self._ledgers = site.ledgers
        self.privacy = mechanism_of(site.settings)

    def mechanism(self, client: str, rows: int, moment: Moment) -> Released:
        """Return how a client must train, where the run has privacy.

        Raises
        ------
        FedproofError
            If its budget does not allow another round, or its settings do not fit.
        """
        privacy = self.privacy
        assert privacy is not None
        entries = self._ledger(client).entries()
        mechanism = privacy.mechanism(client, rows)
        _require_separation(privacy, entries, moment, client)
        if isinstance(mechanism, ClippedUpdate):
            mechanism = replace(mechanism, rounds=_due(privacy, entries, moment))
        planned = Entry(privacy.unit, mechanism.spend, {})
        self._policy.check([*entries, planned], privacy, client)
        return mechanism

    @property
    def adapts(self) -> bool:
        """Whether clips change from round to round."""
        return self.privacy is not None and self.privacy.adapts

    def adapted(self, mechanism: ClippedUpdate, clip: float) -> ClippedUpdate:
        """Return a mechanism with the clip that the server tells, if the settings adapt it.

        Raises
        ------
        FedproofError
            If it tells another one and must not, or one that no quantile leads to.
        """
        most = _MOST_ADAPTED if self.adapts else 1.0
        if not mechanism.clip / most <= clip <= mechanism.clip * most:
            raise FedproofError(
                f"the server asks for clip={clip:g}, the run's settings for {mechanism.clip:g}: "
                "nothing is sent."
            )
        return replace(mechanism, clip=clip)

    def charge(
        self,
        client: str,
        mechanism: Released,
        moment: Moment,
        sizes: tuple[int, int, Seat | None],
    ) -> Charged:
        """Write down what a round costs, before any row is read for it.

        Whatever becomes of the round then, it is paid for: whether it failed may depend on rows.

        Parameters
        ----------
        client : str
            Whose it is.
        mechanism : Released
            How it protects itself.
        moment : Moment
            The round.
        sizes : (int, int, Seat or None)
            The client's rows, the length of its update, and the secure sum that it goes into.

        Raises
        ------
        FedproofError
            If it must not take part.
        """
        privacy = self.privacy
        assert privacy is not None
        rows, dimension, seat = sizes
        spend = mechanism.spend
        cost = 0.0

        def allows(entries: Sequence[Entry]) -> None:
            nonlocal cost
            cost = self._policy.check(entries, privacy, client)

        facts = {
            "run": moment.run,
            "round": moment.number,
            "rows": rows,
            "clip": mechanism.clip,
            "time": round(time.time()),
        }
        if isinstance(privacy, DistributedDP):
            assert seat is not None
            # Until it is known whose noise the sum holds: as little as it may hold.
            spend = privacy.spend(dimension, seat.count, max(seat.threshold, seat.least))
            facts |= {"session": seat.root.hex(), "dimension": dimension}
        self._ledger(client).spend(Entry(privacy.unit, spend, facts), allows)
        return Charged(mechanism, self._told(spend, cost))

    def _told(self, spend: Spend, cost: float) -> ConfigRecord:
        """Return what the server is told of a release, and of the whole ledger's ε."""
        assert self.privacy is not None
        return ConfigRecord(
            {
                "unit": self.privacy.unit,
                "sigma": spend.sigma,
                "rate": spend.rate,
                "steps": spend.steps,
                "delta": self.privacy.delta,
                "ledger-epsilon": cost,
                "ledger-delta": self._policy.measured_at(self.privacy),
            }
        )

    def evaluation(
        self, client: str, rows: int, moment: Moment
    ) -> tuple[EvaluationNoise, ConfigRecord]:
        """Write down a noised evaluation before its rows are read.

        Parameters
        ----------
        client : str
            Whose held-out rows they are.
        rows : int
            Its training rows, as everybody may know them.
        moment : Moment
            The round.

        Returns
        -------
        EvaluationNoise, ConfigRecord
            The noise, and what the server is told of it.

        Raises
        ------
        FedproofError
            If the budget does not allow it, or the run planned no more of them.
        """
        privacy = self.privacy
        assert privacy is not None
        noise = privacy.evaluation_noise(client, rows)
        assert noise is not None
        cost = 0.0

        def allows(entries: Sequence[Entry]) -> None:
            nonlocal cost
            done = sum(
                entry.facts.get("kind") == EVALUATION and entry.facts.get("run") == moment.run
                for entry in entries
            )
            if done > privacy.evaluations:
                raise RefusalError(
                    Refusal.planned,
                    f"the run plans {privacy.evaluations} evaluations, and client '{client}' has "
                    "answered so many: no more are answered.",
                )
            cost = self._policy.check(entries, privacy, client)

        facts = {
            "kind": EVALUATION, "run": moment.run, "round": moment.number,
            "time": round(time.time()),
        }  # fmt: skip
        self._ledger(client).spend(Entry(privacy.unit, noise.spend, facts), allows)
        return noise, self._told(noise.spend, cost)

    def settle(self, client: str, seat: Seat, contributors: int) -> None:
        """Write down what a secure sum costs once it is known whose noise it holds.

        Raises
        ------
        FedproofError
            If that cannot be written.
        """
        privacy = self.privacy
        if not isinstance(privacy, DistributedDP) or seat.purpose != Kind.TRAIN:
            return
        ledger, session = self._ledger(client), seat.root.hex()
        (planned,) = (e for e in ledger.entries() if e.facts.get("session") == session)
        spend = privacy.spend(planned.facts["dimension"], seat.count, contributors)
        facts = {**planned.facts, "contributors": contributors, "settles": session}
        del facts["session"]
        ledger.spend(Entry(privacy.unit, spend, facts), lambda _: None)

    def _ledger(self, client: str) -> Ledger:
        # Ids are any text; what of it a file name cannot hold is told apart by a digest.
        name = re.sub(r"[^0-9A-Za-z_-]", "_", client)[:40]
        digest = hashlib.sha256(client.encode()).hexdigest()[:12]
        return Ledger(self._ledgers / f"{name}-{digest}.jsonl")


def _due(privacy: Privacy, entries: Sequence[Entry], moment: Moment) -> int:
    """Return the rounds that a client has to account for when it takes part.

    Where cohorts are secret, a client shares the cost of every round, also of those in which it
    was not drawn: what it did not write down yet falls due.
    """
    if not privacy.sampled:
        return 1
    trained = (entry.facts for entry in entries if entry.facts.get("kind") != EVALUATION)
    written = (facts["round"] for facts in trained if facts.get("run") == moment.run)
    return max(1, moment.number - max(written, default=moment.start))


def _require_separation(
    privacy: Privacy, entries: Sequence[Entry], moment: Moment, client: str
) -> None:
    for entry in entries:
        if entry.facts.get("kind") == EVALUATION:
            continue
        same = entry.facts.get("run") == moment.run and privacy.separation > 1
        if same and abs(moment.number - int(entry.facts["round"])) < privacy.separation:
            raise RefusalError(
                Refusal.separation,
                f"client '{client}' took part in round {entry.facts['round']}, less than "
                f"privacy.separation={privacy.separation} rounds from this one.",
            )
