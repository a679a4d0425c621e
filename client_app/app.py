"""The Flower ClientApp: a node's three answers."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client_app.cohort import describe_clients, evaluate_clients, train_clients

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Tell which clients this node serves."""
    return describe_clients(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train a cohort of this node's clients."""
    return train_clients(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate a cohort of this node's clients."""
    return evaluate_clients(message, context)
