"""The Flower ClientApp: a node's answers.

It imports torch when the first message comes: Flower's simulation loads the ClientApp before it
starts Ray, which thus starts while the ServerApp imports torch.
"""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp


class Application(ClientApp):
    """A ClientApp that answers, too, when it is asked what nobody here does: that it refuses."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message."""
        try:
            return super().__call__(message, context)
        except ValueError:
            from client_app.answering import refuse

            return refuse(message, context, f"it is of type '{message.metadata.message_type}'")


app = Application()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Tell which clients this node serves."""
    from client_app.cohort import describe_clients

    return describe_clients(message, context)


@app.query("secure")
def secure(message: Message, context: Context) -> Message:
    """Do this node's clients' part in sums that hide their answers."""
    from client_app.secure.serving import secure_clients

    return secure_clients(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train a cohort of this node's clients."""
    from client_app.cohort import train_clients

    return train_clients(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate a cohort of this node's clients."""
    from client_app.cohort import evaluate_clients

    return evaluate_clients(message, context)


@app.evaluate("alone")
def alone(message: Message, context: Context) -> Message:
    """Train this node's clients alone, and tell how their models do."""
    from client_app.alone import compare_clients

    return compare_clients(message, context)
