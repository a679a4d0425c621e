"""Train a cohort: one client after the other or in stacks, each as its privacy demands."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from client_app.answering import excused
from client_app.gate import note
from client_app.guard import Moment
from client_app.leaving import Leaving, require_finite
from client_app.node import Node
from conf.errors import FedproofError
from task.arrays import record_of, values_of
from task.base import Examples
from task.client_update.base import Update, Vectors, Work
from task.personalization import clients_half
from task.privacy.base import Released
from task.privacy.client_dp import ClippedUpdate
from task.privacy.dpsgd import Mechanism
from task.profiling import Stopwatch
from task.seeding import derive
from task.stacked import train_stacked
from task.stacking import stacks
from task.training import Memory
from task.wire import VECTORS, Cohort, WireError

log = logging.getLogger(__name__)


class Training:
    """One cohort's training.

    Parameters
    ----------
    node : Node
        Whose clients they are.
    cohort : Cohort
        What each client is told.
    run : str
        Flower's id of the run.
    """

    def __init__(self, node: Node, cohort: Cohort, run: str) -> None:
        self._node = node
        self._settings = node.settings
        self._cohort = cohort
        self._clock = Stopwatch()
        self._learner = node.learner(cohort.header)
        self._leaving = Leaving(node, cohort, self._learner, self._clock, run)
        self._update = clients_half(node.settings)
        keeps = node.settings.train.keep_optimizer or node.guard.adapts or self._update.keeps
        self._store = node.store(cohort.header) if keeps else None
        self._parts: dict[str, RecordDict] = {}
        self._errors: dict[str, str] = {}

    def run(self) -> Cohort:
        """Train everyone, in stacks if the server says so."""
        torch.set_num_threads(self._settings.train.threads)
        size = self._cohort.header.get("stack", 1)
        if size == 1:
            for client in self._cohort.parts:
                self._alone(client)
        else:
            for group in self._groups(size):
                self._together(group)
        # In the order in which they were asked, however they were grouped.
        parts = {c: self._parts[c] for c in self._cohort.parts if c in self._parts}
        total = None
        if self._leaving.total is not None:
            total = record_of({"total": self._leaving.total.array})
        header = clocked(self._node, self._clock) | self._leaving.told
        return Cohort(parts, self._errors, header, total)

    def _groups(self, size: int) -> list[list[str]]:
        """Return who trains together: as the server says, or by its word on the clients' rows.

        Raises
        ------
        WireError
            If that is not everybody once: who trained twice would count twice.
        """
        header, clients = self._cohort.header, self._cohort.parts
        if "stacks" not in header:
            rows = header.get("rows", {})
            return stacks({client: rows.get(client, 0) for client in clients}, size)
        groups: list[list[str]] = header["stacks"]
        if sorted(client for group in groups for client in group) != sorted(clients):
            raise WireError("the message's 'stacks' do not name every client once")
        return groups

    def _data(self, client: str) -> Examples:
        with self._clock.stage("data"):
            data = self._learner.data(client).train
        note(client, len(data))
        if not len(data):
            raise FedproofError(f"client '{client}' has no training rows.")
        return data

    def _told(self, client: str) -> tuple[int, float]:
        """Return the client's seed and FedProx's mu."""
        config = self._config(client)
        seed = derive(self._settings.seed, "train", self._number(client), client)
        return seed, float(str(config.get("proximal-mu", 0.0)))

    def _vectors(self, client: str) -> Vectors:
        """Return what the server sent beside the model."""
        told = self._cohort.parts[client].get(VECTORS)
        if not isinstance(told, ArrayRecord):
            return {}
        device = self._learner.device
        return {n: torch.from_numpy(values_of(a).copy()).to(device) for n, a in told.items()}

    def _recall(self, client: str) -> Memory:
        if self._store is None:
            return {}
        with self._clock.stage("state"):
            return self._store.load(client, self._number(client))

    def _keep(self, client: str, memory: Memory) -> None:
        if self._store is not None and memory:
            with self._clock.stage("state"):
                number, resumable = self._number(client), self._cohort.header.get("checkpointed")
                self._store.save(client, number, memory, int(resumable or 0))

    def _number(self, client: str) -> int:
        """Return the number of the round."""
        return int(str(self._config(client)["server-round"]))

    def _config(self, client: str) -> ConfigRecord:
        config = self._cohort.parts[client]["config"]
        assert isinstance(config, ConfigRecord)
        return config

    def _mechanism(self, client: str, rows: int) -> Released | None:
        """Return how the client protects itself.

        Raises
        ------
        FedproofError
            If it must not take part.
        """
        if self._node.guard.privacy is None:
            return None
        moment = Moment.of(self._cohort.header, self._number(client))
        mechanism = self._node.guard.mechanism(client, rows, moment)
        clip = self._config(client).get("clip")
        if isinstance(mechanism, ClippedUpdate) and isinstance(clip, float):
            return self._node.guard.adapted(mechanism, clip)
        return mechanism

    def _alone(self, client: str) -> None:
        with excused(self._errors, client):
            data = self._data(client)
            mechanism = self._mechanism(client, len(data))
            layers = self._learner.private if isinstance(mechanism, Mechanism) else None
            models = self._learner.models(self._cohort.parts[client]["arrays"], layers)
            kept, chosen = self._recall(client), models.choose(data)
            model = models.load(kept, chosen)
            differs = isinstance(mechanism, ClippedUpdate) or self._leaving.looks_at_updates
            start = self._learner.layout.of(model.values()).clone() if differs else None
            seed, mu = self._told(client)
            work = Work(
                model, data, self._learner.objective, self._settings.train, seed, mu,
                mechanism if isinstance(mechanism, Mechanism) else None,
                self._vectors(client), kept,
            )  # fmt: skip
            with self._clock.stage("training"):
                update = self._update.run(work)
            update = replace(update, number=chosen)
            self._finish(client, update, len(data), (mechanism, start))

    def _together(self, group: Sequence[str]) -> None:
        found: dict[str, Examples] = {}
        for client in group:
            with excused(self._errors, client):
                found[client] = self._data(client)
        if found:
            self._stacked(found)

    def _stacked(self, found: Mapping[str, Examples]) -> None:
        group, data = list(found), list(found.values())
        told = [self._cohort.parts[client] for client in group]
        alike = all(
            part["arrays"] is told[0]["arrays"] and part["config"] == told[0]["config"]
            for part in told
        )
        try:
            assert alike, "stacked clients start from one model"
            seeds, mus = zip(*(self._told(client) for client in group), strict=True)
            start = self._learner.load(told[0]["arrays"]).vector.detach()
            with self._clock.stage("training"):
                values, trained = train_stacked(
                    self._learner.plain, start, data, self._learner.objective,
                    self._settings.train, seeds=seeds, proximal_mu=mus[0],
                )  # fmt: skip
        except Exception:
            log.exception("a stack of clients failed; each trains alone")
            for client in group:
                self._alone(client)
            return
        # Answers may be written into the model, where this start is.
        start = start.clone()
        for client, row, result, rows in zip(group, values, trained, data, strict=True):
            with excused(self._errors, client):
                mechanism = self._mechanism(client, len(rows))
                self._finish(client, Update(row, result), len(rows), (mechanism, start))

    def _finish(
        self,
        client: str,
        update: Update,
        rows: int,
        private: tuple[Released | None, Tensor | None],
    ) -> None:
        """Keep what the client keeps, and answer what leaves it."""
        require_finite(update.values)
        self._keep(client, update.trained.memory)
        number = self._number(client)
        self._parts[client] = self._leaving.answer(client, update, rows, private, number)


def clocked(node: Node, clock: Stopwatch) -> dict[str, Any]:
    """Return a header with the seconds of this answer, if the run asks where its time goes."""
    return {"clock": clock.seconds} if node.settings.profile else {}
