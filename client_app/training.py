"""Train a cohort: one client after the other or in stacks, each as its privacy demands."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from client_app.answering import excused
from client_app.exit import Answer
from client_app.gate import note
from client_app.guard import Charged
from client_app.leaving import Leaving
from client_app.moment import Moment
from client_app.node import Node
from client_app.request import Request
from task.arrays import record_of, values_of
from task.base import Examples
from task.client_update import proximal_mu
from task.client_update.base import Update, Vectors, Work
from task.personalization import clients_half
from task.privacy.base import Released
from task.privacy.client_dp import ClippedUpdate
from task.privacy.distributed_dp import NoisyUpdate
from task.privacy.dpsgd import Mechanism
from task.profiling import Stopwatch
from task.refusals import Refusal, RefusalError
from task.seeding import derive
from task.stacked import train_stacked
from task.stacking import stacks
from task.training import Memory, Trained

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Charge:
    """What is known of a client before its rows are read.

    Attributes
    ----------
    rows : int
        Training rows, as it says that it has them.
    charged : Charged or None
        Its mechanism, paid for, where the run has privacy.
    """

    rows: int
    charged: Charged | None

    @property
    def mechanism(self) -> Released | None:
        """How the client protects itself."""
        return None if self.charged is None else self.charged.mechanism


class Training:
    """One cohort's training.

    Parameters
    ----------
    node : Node
        Whose clients they are.
    request : Request
        What is asked.
    """

    def __init__(self, node: Node, request: Request) -> None:
        self._node = node
        self._settings = node.settings
        self._request = request
        self._clock = Stopwatch()
        self._learner = node.learner(node.agreement(request))
        self._leaving = Leaving(node, request, self._learner, self._clock)
        self._update = clients_half(node.settings)
        self._mu = proximal_mu(node.settings)
        keeps = node.settings.train.keep_optimizer or node.guard.adapts or self._update.keeps
        self._store = node.store(request.lineage) if keeps else None
        self._charges: dict[str, Charge] = {}
        self._answer = Answer()

    def run(self) -> Answer:
        """Train everyone, in stacks if a simulation says so."""
        torch.set_num_threads(self._settings.train.threads)
        if self._request.hints.stack == 1:
            for client in self._request.work:
                self._alone(client)
        else:
            for group in self._groups():
                self._together(group)
        answer, parts = self._answer, self._answer.parts
        # In the order in which they were asked, however they were grouped.
        answer.parts = {c: parts[c] for c in self._request.work if c in parts}
        if self._leaving.total is not None and answer.parts:
            answer.total = record_of({"total": self._leaving.total.array})
        answer.facts |= clocked(self._node, self._clock) | self._leaving.told
        return answer

    def _groups(self) -> list[list[str]]:
        """Return who trains together: as a simulation says, or by its word on the clients' rows."""
        hints = self._request.hints
        return stacks(hints.rows, hints.stack) if hints.groups is None else hints.groups

    def _charge(self, client: str) -> Charge:
        """Write down what a client's round costs, once; its rows may be read then.

        Raises
        ------
        FedproofError
            If it must not take part.
        """
        if client in self._charges:
            return self._charges[client]
        rows, charged = self._node.public_size(client).train, None
        if self._node.guard.privacy is not None:
            with self._clock.stage("privacy"):
                moment = Moment.of(self._request)
                mechanism = self._node.guard.mechanism(client, rows, moment)
                clip = self._request.work[client].clip
                if isinstance(mechanism, ClippedUpdate) and clip is not None:
                    mechanism = self._node.guard.adapted(mechanism, clip)
                seat = None
                if isinstance(mechanism, NoisyUpdate):
                    seat = self._leaving.seat(client)
                facts = (rows, self._learner.layout.size, seat)
                charged = self._node.guard.charge(client, mechanism, moment, facts)
        elif not rows:
            raise RefusalError(Refusal.data, f"client '{client}' has no training rows.")
        self._charges[client] = Charge(rows, charged)
        return self._charges[client]

    def _data(self, client: str) -> Examples:
        with self._clock.stage("data"):
            data = self._learner.data(client).train
        note(client, len(data))
        return data

    def _seed(self, client: str) -> int:
        return derive(self._settings.seed, "train", self._request.number, client)

    def _vectors(self, client: str) -> Vectors:
        """Return what the server sent beside the model."""
        told = self._request.work[client].vectors
        if told is None:
            return {}
        device = self._learner.device
        return {n: torch.from_numpy(values_of(a).copy()).to(device) for n, a in told.items()}

    def _recall(self, client: str) -> Memory:
        if self._store is None:
            return {}
        with self._clock.stage("state"):
            return self._store.load(client, self._request.number)

    def _keep(self, client: str, memory: Memory) -> None:
        if self._store is not None and memory:
            with self._clock.stage("state"):
                request = self._request
                self._store.save(client, request.number, memory, request.checkpointed)

    def _alone(self, client: str) -> None:
        with excused(self._answer.failures, client):
            charge = self._charge(client)
            mechanism = charge.mechanism
            data = self._data(client)
            layers = self._learner.private if isinstance(mechanism, Mechanism) else None
            models = self._learner.models(self._request.work[client].model, layers)
            kept, chosen = self._recall(client), models.choose(data)
            model = models.load(kept, chosen)
            differs = mechanism is not None or self._leaving.looks_at_updates
            start = self._learner.layout.of(model.values()).clone() if differs else None
            work = Work(
                model, data, self._learner.objective, self._settings.train, self._seed(client),
                self._mu, mechanism if isinstance(mechanism, Mechanism) else None,
                self._vectors(client), kept,
            )  # fmt: skip
            try:
                with self._clock.stage("training"):
                    update = self._update.run(work)
            except Exception:
                if mechanism is None or self._request.simulated:
                    raise
                log.exception("client %s: training failed; what leaves is that of no data", client)
                update = self._without_rows(replace(work, model=models.load(kept, chosen)), charge)
            self._finish(client, replace(update, number=chosen), start)

    def _without_rows(self, work: Work, charge: Charge) -> Update:
        """Return what the mechanism makes of rows of zeros, or of no update.

        Whether training fails may depend on the rows, and so must not be told. What fails on rows
        of zeros, too, depends on none of them.
        """
        if work.mechanism is not None:
            zeros = Examples(torch.zeros_like(work.data.x), torch.zeros_like(work.data.y))
            return self._update.run(replace(work, data=zeros))
        steps = self._settings.train.steps_on(charge.rows)
        return Update(work.model.values(), Trained(math.nan, steps))

    def _together(self, group: Sequence[str]) -> None:
        found: dict[str, Examples] = {}
        for client in group:
            with excused(self._answer.failures, client):
                self._charge(client)
                found[client] = self._data(client)
        if found:
            self._stacked(found)

    def _stacked(self, found: Mapping[str, Examples]) -> None:
        group, data = list(found), list(found.values())
        told = [self._request.work[client].model for client in group]
        try:
            assert all(model is told[0] for model in told), "stacked clients start from one model"
            seeds = [self._seed(client) for client in group]
            start = self._learner.load(told[0]).vector.detach()
            with self._clock.stage("training"):
                values, trained = train_stacked(
                    self._learner.plain, start, data, self._learner.objective,
                    self._settings.train, seeds=seeds, proximal_mu=self._mu,
                )  # fmt: skip
        except Exception:
            log.exception("a stack of clients failed; each trains alone")
            for client in group:
                self._alone(client)
            return
        # Answers may be written into the model, where this start is.
        start = start.clone()
        for client, row, result in zip(group, values, trained, strict=True):
            with excused(self._answer.failures, client):
                self._finish(client, Update(row, result), start)

    def _finish(self, client: str, update: Update, start: Tensor | None) -> None:
        """Keep what the client keeps, and answer what leaves it.

        Raises
        ------
        RefusalError
            If nobody could use the update, in a run without privacy. With privacy it counts as
            none: whether it is finite depends on the rows.
        """
        charge = self._charges[client]
        # A norm is finite unless some value is not: cheaper than to look at each.
        if torch.isfinite(update.values.norm()):
            self._keep(client, update.trained.memory)
        elif charge.charged is None:
            raise RefusalError(
                Refusal.diverged, "its update holds NaN or infinity: lower train.lr."
            )
        self._answer.parts[client] = self._leaving.answer(
            client, update, charge.rows, charge.charged, start
        )


def clocked(node: Node, clock: Stopwatch) -> dict[str, Any]:
    """Return a header with the seconds of this answer, if the run asks where its time goes."""
    return {"clock": clock.seconds} if node.settings.profile else {}
