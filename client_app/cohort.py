"""Serve a cohort: check the server, do the work of each client, answer in one message."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from client_app.node import Learner, Node, node_of
from conf.errors import FedproofError
from task.aggregation import WeightedSum
from task.evaluation import evaluate
from task.seeding import derive
from task.training import train
from task.wire import Cohort, WireError

log = logging.getLogger(__name__)


class Work(Protocol):
    """What is done for one client: from what it is told to what it answers."""

    def __call__(
        self, learner: Learner, client: str, told: RecordDict, total: WeightedSum | None
    ) -> RecordDict:
        """Do it; a model that is added to `total` is not part of the answer."""
        ...


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


def serve(work: Work) -> Callable[[Message, Context], Message]:
    """Return a handler that does `work` for each client of a cohort message."""

    def handler(message: Message, context: Context) -> Message:
        return _reply(message, context, lambda node, cohort: _serve(node, cohort, work))

    return handler


def train_client(
    learner: Learner, client: str, told: RecordDict, total: WeightedSum | None
) -> RecordDict:
    """Train the global model on a client's rows; answer training metrics and the model."""
    config = told.config_records["config"]
    model = learner.load(told.array_records["arrays"])
    data = learner.data(client).train
    if not len(data):
        raise FedproofError(f"client '{client}' has no training rows.")
    seed = derive(learner.settings.seed, "train", int(str(config["server-round"])), client)
    mu = float(str(config.get("proximal-mu", 0.0)))
    trained = train(
        model, data, learner.objective, learner.settings.train, seed=seed, proximal_mu=mu
    )
    metrics = MetricRecord(
        {"num-examples": len(data), "loss": trained.loss, "steps": trained.steps}
    )
    if total is None:
        return RecordDict({"arrays": ArrayRecord(model.state()), "metrics": metrics})
    values = model.values()
    # A norm is finite unless some value is not: cheaper than to look at each.
    if not values.norm().isfinite():
        raise FedproofError("its update holds NaN or infinity: lower train.lr.")
    total.add(values, len(data))
    return RecordDict({"metrics": metrics})


def evaluate_client(
    learner: Learner, client: str, told: RecordDict, total: WeightedSum | None
) -> RecordDict:
    """Evaluate the global model on a client's held-out rows; answer metrics and sums."""
    model = learner.load(told.array_records["arrays"])
    data = learner.data(client).test
    if not len(data):
        raise FedproofError(f"client '{client}' has no held-out rows.")
    result = evaluate(model.module, data, learner.objective)
    return RecordDict(
        {
            "metrics": MetricRecord({"num-examples": len(data), **result.metrics}),
            "statistics": ConfigRecord({k: list(v) for k, v in result.statistics.items()}),
        }
    )


def _serve(node: Node, cohort: Cohort, work: Work) -> Cohort:
    torch.set_num_threads(node.settings.train.threads)
    learner = node.learner(cohort.header)
    parts: dict[str, RecordDict] = {}
    errors: dict[str, str] = {}
    total = _total(learner, cohort)
    for client, told in cohort.parts.items():
        try:
            parts[client] = work(learner, client, told, total)
        except FedproofError as error:
            errors[client] = str(error)
        except Exception as error:
            # The text of an unforeseen error may quote data: it stays in this node's log.
            log.exception("client %s failed", client)
            errors[client] = f"{type(error).__name__}: see the log of the client's node."
    if total is None:
        return Cohort(parts, errors)
    return Cohort(parts, errors, total=ArrayRecord({"total": Array(total.total.numpy())}))


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
