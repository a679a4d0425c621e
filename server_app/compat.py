"""The few private parts of Flower that an in-process Grid needs, behind a version guard."""

from __future__ import annotations

import uuid

from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from conf.flower import require_tested


def adopt_identity(run_id: int, node_id: int = 1) -> None:
    """Let this process create messages, as Flower's own runtime does before it calls an app.

    Raises
    ------
    FedproofError
        If the installed Flower is one that this was not tested with.
    """
    require_tested("federation=local", "federation=flower")
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, node_id, run_id


def stamp(message: Message) -> Message:
    """Give a message an id, as a SuperLink would; its hash takes longer than small training."""
    message.metadata.__dict__["_message_id"] = uuid.uuid4().hex
    return message
