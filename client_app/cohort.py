"""Serve a cohort: check the server, do the work of each client, answer in one message."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict

from client_app.node import Learner, Node, node_of
from client_app.training import Training, clocked, excused
from conf.errors import FedproofError
from task.base import Examples
from task.evaluation import Evaluated, evaluate
from task.profiling import Stopwatch
from task.wire import Cohort, WireError, config

log = logging.getLogger(__name__)


def describe_clients(message: Message, context: Context) -> Message:
    """Answer which clients this node serves, with example counts and their descriptions."""

    def answer(node: Node, _: Cohort) -> Cohort:
        source = node.source
        clients = source.clients
        sizes = [source.size(client) for client in clients]
        if node.protection is not None:
            # How many rows a client has is what sums hide, too.
            sizes = [(min(train, 1), min(test, 1)) for train, test in sizes]
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


def secure_clients(message: Message, context: Context) -> Message:
    """Do each client's part in a sum that hides its answer: keys, shares, signatures."""

    def answer(node: Node, cohort: Cohort) -> Cohort:
        secure = node.secure(cohort.header)
        if secure is None:
            raise FedproofError("this run has aggregation=none: there is nothing to be unmasked.")
        clock = Stopwatch()
        parts: dict[str, RecordDict] = {}
        errors: dict[str, str] = {}
        for client, told in cohort.parts.items():
            with excused(errors, client), clock.stage("secure aggregation"):
                if client not in node.source.clients:
                    raise FedproofError(f"client '{client}' is not served by this node.")
                parts[client] = secure.answer(client, told)
        return Cohort(parts, errors, clocked(node, clock))

    return _reply(message, context, answer)


def evaluate_clients(message: Message, context: Context) -> Message:
    """Evaluate the global model on each client's held-out rows; answer metrics and sums."""

    def answer(node: Node, cohort: Cohort) -> Cohort:
        torch.set_num_threads(node.settings.train.threads)
        learner, secure = node.learner(cohort.header), node.secure(cohort.header)
        parts: dict[str, RecordDict] = {}
        errors: dict[str, str] = {}
        clock = Stopwatch()
        for client, told in cohort.parts.items():
            with excused(errors, client), clock.stage("evaluation"):
                with clock.stage("data"):
                    data = learner.data(client).test
                result = _evaluate(learner, client, told, data)
                if secure is None:
                    parts[client] = _answer(result, len(data))
                else:
                    parts[client] = secure.hidden(
                        client, config(told, "secure"), torch.empty(0), 1, result.statistics
                    )
        return Cohort(parts, errors, clocked(node, clock))

    return _reply(message, context, answer)


def _evaluate(learner: Learner, client: str, told: RecordDict, data: Examples) -> Evaluated:
    model = learner.load(told["arrays"])
    if not len(data):
        raise FedproofError(f"client '{client}' has no held-out rows.")
    return evaluate(model.module, data, learner.objective)


def _answer(result: Evaluated, rows: int) -> RecordDict:
    return RecordDict(
        {
            "metrics": MetricRecord({"num-examples": rows, **result.metrics}),
            "statistics": ConfigRecord({k: list(v) for k, v in result.statistics.items()}),
        }
    )


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
