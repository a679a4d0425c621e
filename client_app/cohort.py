"""Serve a cohort: check the server, do the work of each client, answer in one message."""

from __future__ import annotations

from flwr.app import Context, Message

from client_app.answering import reply
from client_app.evaluating import Evaluating
from client_app.exit import Answer
from client_app.gate import note
from client_app.node import node_of
from client_app.request import Request
from client_app.site import Site
from client_app.training import Training
from task.privacy.row_counts import RowCounts


def describe_clients(message: Message, context: Context) -> Message:
    """Answer which clients this node serves, with example counts and their descriptions."""

    def answer(site: Site, _: Request) -> Answer:
        node = node_of(site)
        source, clients = node.source, node.source.clients
        sizes = [node.public_size(client) for client in clients]
        for client in clients:
            note(client, sum(source.size(client)))
        if site.protection is not None:
            # How many rows a client has is what sums hide, too.
            sizes = [RowCounts(min(size.train, 1), min(size.test, 1)) for size in sizes]
        describes = {client: told for client in clients if (told := source.describe(client))}
        listing = {
            "clients": list(clients),
            "train": [size.train for size in sizes],
            "test": [size.test for size in sizes],
            "describes": describes,
        }
        return Answer(facts=listing)

    return reply(message, context, answer)


def train_clients(message: Message, context: Context) -> Message:
    """Train the global model on each client's rows; answer training metrics, and the models.

    The models are added up on the way if the server wants no more than their sum.
    """
    return reply(message, context, lambda site, request: Training(node_of(site), request).run())


def evaluate_clients(message: Message, context: Context) -> Message:
    """Evaluate on each client's held-out rows what it uses; answer what may leave of that."""
    return reply(message, context, lambda site, request: Evaluating(node_of(site), request).run())
