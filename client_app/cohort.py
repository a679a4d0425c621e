"""Serve a cohort: check the server, do the work of each client, answer in one message."""

from __future__ import annotations

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict

from client_app.answering import excused, reply
from client_app.gate import note
from client_app.node import node_of
from client_app.site import Site
from client_app.training import Training, clocked
from task.evaluation import Evaluated
from task.profiling import Stopwatch
from task.wire import Cohort, config


def describe_clients(message: Message, context: Context) -> Message:
    """Answer which clients this node serves, with example counts and their descriptions."""

    def answer(site: Site, _: Cohort) -> Cohort:
        source = node_of(site).source
        clients = source.clients
        sizes = [source.size(client) for client in clients]
        for client, size in zip(clients, sizes, strict=True):
            note(client, sum(size))
        if site.protection is not None:
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

    return reply(message, context, answer)


def train_clients(message: Message, context: Context) -> Message:
    """Train the global model on each client's rows; answer training metrics, and the models.

    The models are added up on the way if the server wants no more than their sum.
    """
    return reply(message, context, lambda site, cohort: Training(node_of(site), cohort).run())


def evaluate_clients(message: Message, context: Context) -> Message:
    """Evaluate on each client's held-out rows what it uses; answer metrics and sums."""

    def answer(site: Site, cohort: Cohort) -> Cohort:
        node = node_of(site)
        torch.set_num_threads(node.settings.train.threads)
        learner, secure = node.learner(cohort.header), site.secure(cohort.header)
        store = node.personal_store(cohort.header)
        parts: dict[str, RecordDict] = {}
        errors: dict[str, str] = {}
        clock = Stopwatch()
        for client, told in cohort.parts.items():
            with excused(errors, client), clock.stage("evaluation"):
                with clock.stage("data"):
                    data = learner.data(client)
                note(client, len(data.test))
                number = int(str(config(told, "config")["server-round"]))
                with clock.stage("state"):
                    kept = {} if store is None else store.load(client, number + 1)
                models = learner.models(told["arrays"])
                result = models.evaluate(client, data, kept, node.settings, number)
                if secure is None:
                    parts[client] = _answer(result, len(data.test))
                else:
                    parts[client], _ = secure.hidden(
                        client, config(told, "secure"), torch.empty(0), 1, result.statistics
                    )
        return Cohort(parts, errors, clocked(node, clock))

    return reply(message, context, answer)


def _answer(result: Evaluated, rows: int) -> RecordDict:
    return RecordDict(
        {
            "metrics": MetricRecord({"num-examples": rows, **result.metrics}),
            "statistics": ConfigRecord({k: list(v) for k, v in result.statistics.items()}),
        }
    )
