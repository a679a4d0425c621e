"""Train a cohort: one client after the other or in stacks, each as its privacy demands."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from client_app.answering import excused
from client_app.gate import note
from client_app.guard import Moment
from client_app.node import Learner, Node
from conf.errors import FedproofError
from task.aggregation import WeightedSum
from task.arrays import record_of
from task.base import Examples
from task.flat import FlatModel
from task.privacy.base import Released
from task.privacy.client_dp import ClippedUpdate, require_protectable
from task.privacy.distributed_dp import NoisyUpdate
from task.privacy.dpsgd import Mechanism, train_privately
from task.profiling import Stopwatch
from task.secagg.seat import Seat
from task.seeding import derive
from task.stacked import stacks, train_stacked
from task.training import Memory, Trained, train
from task.wire import Cohort, config, records

log = logging.getLogger(__name__)
_ONE = MetricRecord({"num-examples": 1})
"""All that is told of training whose noise protects that a client took part."""


class Training:
    """One cohort's training.

    Parameters
    ----------
    node : Node
        Whose clients they are.
    cohort : Cohort
        What each client is told.
    """

    def __init__(self, node: Node, cohort: Cohort) -> None:
        self._node = node
        self._settings = node.settings
        self._cohort = cohort
        self._learner = node.learner(cohort.header)
        self._secure = node.site.secure(cohort.header)
        self._total = _total(self._learner, cohort)
        keeps = node.settings.train.keep_optimizer or node.guard.adapts
        self._store = node.store(cohort.header) if keeps else None
        self._parts: dict[str, RecordDict] = {}
        self._errors: dict[str, str] = {}
        self._clock = Stopwatch()

    def run(self) -> Cohort:
        """Train everyone, in stacks if the server says so."""
        torch.set_num_threads(self._settings.train.threads)
        size = self._cohort.header.get("stack", 1)
        if size == 1:
            for client in self._cohort.parts:
                self._alone(client)
        else:
            rows = {c: r for c in self._cohort.parts if (r := self._rows(c)) is not None}
            for group in self._cohort.header.get("stacks") or stacks(rows, size):
                self._together([client for client in group if client in rows])
        # In the order in which they were asked, however they were grouped.
        parts = {c: self._parts[c] for c in self._cohort.parts if c in self._parts}
        total = None
        if self._total is not None:
            total = record_of({"total": self._total.array})
        return Cohort(parts, self._errors, clocked(self._node, self._clock), total)

    def _rows(self, client: str) -> int | None:
        with excused(self._errors, client):
            return len(self._data(client))
        return None

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

    def _recall(self, client: str) -> Memory | None:
        if self._store is None:
            return None
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
        mechanism = self._node.guard.mechanism(client, rows, self._moment(client))
        clip = self._config(client).get("clip")
        if isinstance(mechanism, ClippedUpdate) and isinstance(clip, float):
            return self._node.guard.adapted(mechanism, clip)
        return mechanism

    def _moment(self, client: str) -> Moment:
        return Moment.of(self._cohort.header, self._number(client))

    def _alone(self, client: str) -> None:
        with excused(self._errors, client):
            data = self._data(client)
            mechanism = self._mechanism(client, len(data))
            layers = self._learner.private if isinstance(mechanism, Mechanism) else None
            model = self._learner.load(self._cohort.parts[client]["arrays"], layers)
            differs = isinstance(mechanism, ClippedUpdate) or self._secure is not None
            start = model.values().clone() if differs else None
            with self._clock.stage("training"):
                trained = self._train(client, model, data, mechanism)
            self._finish(client, model.values(), trained, len(data), (mechanism, start))

    def _train(
        self, client: str, model: FlatModel, data: Examples, mechanism: Released | None
    ) -> Trained:
        seed, mu = self._told(client)
        objective, config = self._learner.objective, self._settings.train
        memory = self._recall(client)
        if isinstance(mechanism, Mechanism):
            return train_privately(
                model, data, objective, config, mechanism,
                seed=seed, proximal_mu=mu, memory=memory,
            )  # fmt: skip
        return train(model, data, objective, config, seed=seed, proximal_mu=mu, memory=memory)

    def _together(self, group: list[str]) -> None:
        told = [self._cohort.parts[client] for client in group]
        alike = all(
            part["arrays"] is told[0]["arrays"] and part["config"] == told[0]["config"]
            for part in told
        )
        try:
            assert alike, "stacked clients start from one model"
            data = [self._data(client) for client in group]
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
                self._finish(client, row, result, len(rows), (mechanism, start))

    def _finish(
        self,
        client: str,
        values: Tensor,
        trained: Trained,
        rows: int,
        private: tuple[Released | None, Tensor | None],
    ) -> None:
        """Answer a client's metrics; add its model up, or answer it, too.

        `private` is its mechanism, and the global model where that looks at the update.
        """
        # A norm is finite unless some value is not: cheaper than to look at each.
        if not values.norm().isfinite():
            raise FedproofError("its update holds NaN or infinity: lower train.lr.")
        self._keep(client, trained.memory)
        mechanism, start = private
        metrics = MetricRecord({"num-examples": rows, "steps": trained.steps})
        if isinstance(mechanism, ClippedUpdate):
            assert start is not None
            values = self._protected(values, start, mechanism, metrics)
        elif mechanism is None and math.isfinite(trained.loss):
            metrics["loss"] = trained.loss
        part, session = RecordDict(), None
        if self._secure is not None:
            assert start is not None
            if isinstance(mechanism, NoisyUpdate):
                require_protectable(self._learner.plain)
                values, metrics = (values - start) * self._learner.model.trainable, _ONE
            elif not isinstance(mechanism, ClippedUpdate) or mechanism.local:
                values = values - start
            part, session = self._masked(client, values, metrics)
        if mechanism is not None:
            with self._clock.stage("privacy"):
                moment = self._moment(client)
                facts = (rows, len(values), session)
                part["privacy"] = self._node.guard.release(client, mechanism, moment, facts)
        if self._secure is None:
            part["metrics"] = metrics
            with self._clock.stage("summing"):
                self._add(part, values)
        self._parts[client] = part

    def _add(self, part: RecordDict, values: Tensor) -> None:
        """Add a client's model up, or put it into its answer."""
        if self._total is None:
            part["arrays"] = ArrayRecord(self._learner.model.state_of(values))
        else:
            self._total.add(values.cpu(), int(str(records(part, MetricRecord)[0]["num-examples"])))

    def _masked(
        self, client: str, update: Tensor, metrics: MetricRecord
    ) -> tuple[RecordDict, Seat | None]:
        """Return a client's update and its metrics, each times its weight, for a secure sum."""
        assert self._secure is not None
        told = config(self._cohort.parts[client], "secure")
        weight = int(str(metrics["num-examples"]))
        figures = {name: [float(str(value)) * weight] for name, value in metrics.items()}
        figures["num-examples"] = [float(weight)]
        with self._clock.stage("secure aggregation"):
            return self._secure.hidden(client, told, update.cpu(), weight, figures)

    def _protected(
        self, values: Tensor, start: Tensor, mechanism: ClippedUpdate, metrics: MetricRecord
    ) -> Tensor:
        """Return what leaves for client-level privacy: the clipped update, or a noised model."""
        require_protectable(self._learner.plain)
        update, unclipped = mechanism.clipped((values - start) * self._learner.model.trainable)
        if mechanism.local:
            return start + mechanism.noised(update) * self._learner.model.trainable
        metrics["num-examples"] = mechanism.weight
        metrics["unclipped"] = int(unclipped)
        return update


def clocked(node: Node, clock: Stopwatch) -> dict[str, Any]:
    """Return a header with the seconds of this answer, if the run asks where its time goes."""
    return {"clock": clock.seconds} if node.settings.profile else {}


def _total(learner: Learner, cohort: Cohort) -> WeightedSum | None:
    """Return where to add the clients' models, if the server wants no more than their sum.

    The sum of one is the model itself, which is half as long, unless sums are wanted of one, too.
    """
    unit = cohort.header.get("sum_unit")
    if not isinstance(unit, float) or len(cohort.parts) < cohort.header.get("sum_from", 2):
        return None
    return WeightedSum(len(learner.model.values()), unit)
