"""The few private parts of Flower that an in-process Grid needs, behind a version guard."""

from __future__ import annotations

import uuid
from importlib.metadata import version

from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from conf.errors import FedproofError

TESTED = "1.41."


def adopt_identity(run_id: int, node_id: int = 1) -> None:
    """Let this process create messages, as Flower's own runtime does before it calls an app.

    Raises
    ------
    FedproofError
        If the installed Flower is one that this was not tested with.
    """
    installed = version("flwr")
    if not installed.startswith(TESTED):
        raise FedproofError(
            f"flwr {installed} is installed, but federation=local was tested with {TESTED}x: "
            f"install flwr {TESTED}x or use federation=flower."
        )
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, node_id, run_id


def stamp(message: Message) -> Message:
    """Give a message an id, as a SuperLink would; its hash takes longer than small training."""
    message.metadata.__dict__["_message_id"] = uuid.uuid4().hex
    return message
