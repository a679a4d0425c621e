"""Serve a cohort: check the server, do the work of each client, answer in one message."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from torch import Tensor

from client_app.node import Learner, Node, node_of
from conf.errors import FedproofError
from task.aggregation import WeightedSum
from task.arrays import record_of
from task.base import Examples
from task.evaluation import evaluate
from task.flat import FlatModel
from task.privacy.dpsgd import Mechanism, train_privately
from task.profiling import Stopwatch
from task.seeding import derive
from task.stacked import stacks, train_stacked
from task.training import Memory, Trained, train
from task.wire import Cohort, WireError

log = logging.getLogger(__name__)


def describe_clients(message: Message, context: Context) -> Message:
    """Answer which clients this node serves, with example counts and their descriptions."""

    def answer(node: Node, _: Cohort) -> Cohort:
        source = node.source
        clients = source.clients
        sizes = [source.size(client) for client in clients]
        describes = {client: told for client in clients if (told := source.describe(client))}
        listing = {
            "clients": list(clients),
            "train": [train for train, _ in sizes],
            "test": [test for _, test in sizes],
            "describes": describes,
        }
        return Cohort(header=listing)

    return _reply(message, context, answer)


def train_clients(message: Message, context: Context) -> Message:
    """Train the global model on each client's rows; answer training metrics, and the models.

    The models are added up on the way if the server wants no more than their sum.
    """
    return _reply(message, context, lambda node, cohort: Training(node, cohort).run())


def evaluate_clients(message: Message, context: Context) -> Message:
    """Evaluate the global model on each client's held-out rows; answer metrics and sums."""

    def answer(node: Node, cohort: Cohort) -> Cohort:
        torch.set_num_threads(node.settings.train.threads)
        learner = node.learner(cohort.header)
        parts: dict[str, RecordDict] = {}
        errors: dict[str, str] = {}
        clock = Stopwatch()
        for client, told in cohort.parts.items():
            with _excused(errors, client), clock.stage("evaluation"):
                with clock.stage("data"):
                    data = learner.data(client).test
                parts[client] = _evaluate(learner, client, told, data)
        return Cohort(parts, errors, _clocked(node, clock))

    return _reply(message, context, answer)


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
        self._total = _total(self._learner, cohort)
        self._store = node.store(cohort.header) if node.settings.train.keep_optimizer else None
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
        return Cohort(parts, self._errors, _clocked(self._node, self._clock), total)

    def _rows(self, client: str) -> int | None:
        with _excused(self._errors, client):
            return len(self._data(client))
        return None

    def _data(self, client: str) -> Examples:
        with self._clock.stage("data"):
            data = self._learner.data(client).train
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
        if self._store is not None:
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

    def _model(self, client: str) -> FlatModel:
        """Return the model with the global values that the client was told."""
        return self._learner.load(self._cohort.parts[client]["arrays"])

    def _alone(self, client: str) -> None:
        with _excused(self._errors, client):
            data = self._data(client)
            mechanism = self._node.guard.mechanism(client, len(data))
            if mechanism is not None:
                self._privately(client, data, mechanism)
                return
            model, (seed, mu) = self._model(client), self._told(client)
            objective, config = self._learner.objective, self._settings.train
            with self._clock.stage("training"):
                trained = train(
                    model, data, objective, config,
                    seed=seed, proximal_mu=mu, memory=self._recall(client),
                )  # fmt: skip
            self._finish(client, model.values(), trained, len(data))

    def _privately(self, client: str, data: Examples, mechanism: Mechanism) -> None:
        told = self._cohort.parts[client]["arrays"]
        model, (seed, mu) = self._learner.load(told, self._learner.private), self._told(client)
        with self._clock.stage("training"):
            trained = train_privately(
                model, data, self._learner.objective, self._settings.train, mechanism,
                seed=seed, proximal_mu=mu,
            )  # fmt: skip
        facts = {
            "run": self._cohort.header["lineage"][0][0],
            "round": self._number(client),
            "rows": len(data),
        }
        with self._clock.stage("privacy"):
            released = self._node.guard.release(client, mechanism, facts)
        self._finish(client, model.values(), trained, len(data))
        self._parts[client]["privacy"] = released

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
            start = self._model(group[0]).vector.detach()
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
        for client, row, result, rows in zip(group, values, trained, data, strict=True):
            with _excused(self._errors, client):
                self._finish(client, row, result, len(rows))

    def _finish(self, client: str, values: Tensor, trained: Trained, rows: int) -> None:
        """Answer a client's metrics; add its model up, or answer it, too."""
        # A norm is finite unless some value is not: cheaper than to look at each.
        if not values.norm().isfinite():
            raise FedproofError("its update holds NaN or infinity: lower train.lr.")
        self._keep(client, trained.memory)
        metrics = MetricRecord({"num-examples": rows, "steps": trained.steps})
        if math.isfinite(trained.loss):
            metrics["loss"] = trained.loss
        part = RecordDict({"metrics": metrics})
        with self._clock.stage("summing"):
            if self._total is not None:
                self._total.add(values.cpu(), rows)
            else:
                part["arrays"] = ArrayRecord(self._learner.model.state_of(values))
        self._parts[client] = part


def _evaluate(learner: Learner, client: str, told: RecordDict, data: Examples) -> RecordDict:
    model = learner.load(told["arrays"])
    if not len(data):
        raise FedproofError(f"client '{client}' has no held-out rows.")
    result = evaluate(model.module, data, learner.objective)
    return RecordDict(
        {
            "metrics": MetricRecord({"num-examples": len(data), **result.metrics}),
            "statistics": ConfigRecord({k: list(v) for k, v in result.statistics.items()}),
        }
    )


def _clocked(node: Node, clock: Stopwatch) -> dict[str, Any]:
    """Return a header with the seconds of this answer, if the run asks where its time goes."""
    return {"clock": clock.seconds} if node.settings.profile else {}


@contextmanager
def _excused(errors: dict[str, str], client: str) -> Iterator[None]:
    """Note why a client failed, and go on without it."""
    try:
        yield
    except FedproofError as error:
        errors[client] = str(error)
    except Exception as error:
        # The text of an unforeseen error may quote data: it stays in this node's log.
        log.exception("client %s failed", client)
        errors[client] = f"{type(error).__name__}: see the log of the client's node."


def _total(learner: Learner, cohort: Cohort) -> WeightedSum | None:
    """Return where to add the clients' models, if the server wants no more than their sum.

    The sum of one is the model itself, which is half as long, unless sums are wanted of one, too.
    """
    unit = cohort.header.get("sum_unit")
    if not isinstance(unit, float) or len(cohort.parts) < cohort.header.get("sum_from", 2):
        return None
    return WeightedSum(len(learner.model.values()), unit)


def _reply(message: Message, context: Context, answer: Callable[[Node, Cohort], Cohort]) -> Message:
    """Check the message, answer it, and put this node's digests into the header.

    A refusal is an answer too, with the reason in its header.
    """
    try:
        node = node_of(context)
        cohort = Cohort.unpack(message.content)
        node.check(cohort.header)
        result = answer(node, cohort)
        reply = replace(result, header={**result.header, **node.digests})
    except (FedproofError, WireError) as error:
        log.warning("refused: %s", error)
        reply = Cohort(header={"refused": str(error)})
    return Message(reply.pack(), reply_to=message)
