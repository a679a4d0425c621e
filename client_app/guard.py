"""What may leave a client: its policy, its mechanism, and its ledger decide together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flwr.app import ConfigRecord

from client_app.ledgers import ledger_of
from client_app.moment import EVALUATION, Moment, require_separation, rounds_due
from client_app.site import Site
from conf.errors import FedproofError
from task.privacy.accounting import Spend
from task.privacy.base import Released
from task.privacy.client_dp import ClippedUpdate
from task.privacy.distributed_dp import DistributedDP
from task.privacy.evaluation import EvaluationNoise
from task.privacy.ledger import Entry
from task.privacy.policy import mechanism_of
from task.refusals import Refusal, RefusalError
from task.secagg.seat import Seat
from task.secure.kinds import Kind

_MOST_ADAPTED = 1e6
"""Times the first clip, and of the first clip, that an adapted one may be."""


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
        Its settings, policy and ledgers.

    Raises
    ------
    FedproofError
        If the privacy settings are wrong.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._policy = site.policy
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
        ledger = ledger_of(self._site, client)
        entries = ledger.ledger.entries()
        mechanism = privacy.mechanism(client, rows)
        mine = [e for e in entries if not ledger.is_of_others(e)]
        require_separation(privacy, mine, moment, client)
        if isinstance(mechanism, ClippedUpdate):
            due = rounds_due(privacy, [e for e in entries if ledger.covers(e)], moment)
            mechanism = replace(mechanism, rounds=due)
        planned = ledger.entry(privacy.unit, mechanism.spend, {})
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
        ledger = ledger_of(self._site, client)
        ledger.spend(ledger.entry(privacy.unit, spend, facts), allows)
        return Charged(mechanism, self._told(spend, cost, ledger.sealed_head()))

    def _told(self, spend: Spend, cost: float, head: str | None) -> ConfigRecord:
        """Return what the server is told of a release, and of the whole ledger."""
        assert self.privacy is not None
        told = ConfigRecord(
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
        if head is not None:
            told["ledger-head"] = head
        return told

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
        privacy, ledger = self.privacy, ledger_of(self._site, client)
        assert privacy is not None
        noise = privacy.evaluation_noise(client, rows)
        assert noise is not None
        cost = 0.0

        def allows(entries: Sequence[Entry]) -> None:
            nonlocal cost
            done = sum(
                entry.facts.get("kind") == EVALUATION and entry.facts.get("run") == moment.run
                for entry in entries
                if ledger.covers(entry)
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
        ledger.spend(ledger.entry(privacy.unit, noise.spend, facts), allows)
        return noise, self._told(noise.spend, cost, ledger.sealed_head())

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
        ledger, session = ledger_of(self._site, client), seat.root.hex()
        (planned,) = (
            entry
            for entry in ledger.ledger.entries()
            if entry.facts.get("session") == session and entry.client == ledger.client
        )
        spend = privacy.spend(planned.facts["dimension"], seat.count, contributors)
        facts = {**planned.facts, "contributors": contributors, "settles": session}
        del facts["session"]
        ledger.spend(replace(planned, spend=spend, facts=facts), lambda _: None)
