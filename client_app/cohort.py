"""Serve a cohort: check the server, do the work of each client, answer in one message."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from client_app.node import Learner, Node, node_of
from conf.errors import FedproofError
from task.evaluation import evaluate
from task.seeding import derive
from task.training import train
from task.wire import Cohort, WireError

log = logging.getLogger(__name__)

Work = Callable[[Learner, str, RecordDict], RecordDict]


def describe_clients(message: Message, context: Context) -> Message:
    """Answer which clients this node serves, with example counts and their descriptions."""

    def answer(node: Node, _: Cohort) -> Cohort:
        source = node.source
        clients = {
            client: {
                "train": source.size(client)[0],
                "test": source.size(client)[1],
                "describes": source.describe(client),
            }
            for client in source.clients
        }
        return Cohort(header={"clients": clients})

    return _reply(message, context, answer)


def serve(work: Work) -> Callable[[Message, Context], Message]:
    """Return a handler that does `work` for each client of a cohort message."""

    def handler(message: Message, context: Context) -> Message:
        return _reply(message, context, lambda node, cohort: _serve(node, cohort, work))

    return handler


def train_client(learner: Learner, client: str, told: RecordDict) -> RecordDict:
    """Train the global model on a client's rows; answer the model and its training metrics."""
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
    return RecordDict({"arrays": ArrayRecord(model.state()), "metrics": metrics})


def evaluate_client(learner: Learner, client: str, told: RecordDict) -> RecordDict:
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
    for client, told in cohort.parts.items():
        try:
            parts[client] = work(learner, client, told)
        except FedproofError as error:
            errors[client] = str(error)
        except Exception as error:
            # The text of an unforeseen error may quote data: it stays in this node's log.
            log.exception("client %s failed", client)
            errors[client] = f"{type(error).__name__}: see the log of the client's node."
    return Cohort(parts, errors)


def _reply(message: Message, context: Context, answer: Callable[[Node, Cohort], Cohort]) -> Message:
    """Check the message, answer it, and put this node's digests into the header.

    A refusal is an answer too, with the reason in its header.
    """
    try:
        node = node_of(context)
        cohort = Cohort.unpack(message.content)
        node.check(cohort.header)
        result = answer(node, cohort)
        reply = Cohort(result.parts, result.errors, {**result.header, **node.digests})
    except (FedproofError, WireError) as error:
        log.warning("refused: %s", error)
        reply = Cohort(header={"refused": str(error)})
    return Message(reply.pack(), reply_to=message)
