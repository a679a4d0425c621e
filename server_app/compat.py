"""The few private parts of Flower that its simulation and an in-process Grid need."""

from __future__ import annotations

import time
import uuid

from flwr.app import Message
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from conf.flower import require_tested

PATIENCE = 20.0
"""Seconds after which a simulation whose Ray has not started goes on."""


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


def await_ray(grid: Grid) -> None:
    """Wait until Ray has started, if this is the process of a simulation by Flower.

    Parameters
    ----------
    grid : Grid
        The ServerApp's, which tells where it runs.
    """
    if type(grid).__name__ != "InMemoryGrid":
        return
    import ray

    deadline = time.monotonic() + PATIENCE
    while not ray.is_initialized() and time.monotonic() < deadline:
        time.sleep(0.02)
