"""What tests of secure sums share: short runs, answers that get lost, how far models are apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Message
from safetensors.numpy import load

from task.wire import Cohort

SHORT = ("model.hidden=[8]", "train.steps=3", "federation.workers=1")
TASKS = {
    "healthcare": ("rounds=3", "train.steps=5"),
    "digits": ("task=vision", "rounds=2", "train.steps=3", "federation.clients=4"),
    "keyboard": ("task=keyboard", "model=char_transformer", "model.width=16", "model.layers=1",
                 "rounds=1", "train.steps=2", "federation.clients=4", "federation.fraction=1"),
}  # fmt: skip


def difference(one: Any, other: Any) -> float:
    mine, theirs = load(one.model), load(other.model)
    return max(float(np.abs(mine[k].astype(float) - theirs[k]).max()) for k in mine)


def without(client: str, stage: str, rounds: tuple[int, ...] = (1,)) -> Callable[..., Any]:
    """Return a fault: a client's answers at a stage get lost in these rounds (of training)."""
    seen = {"train": 0}

    def tamper(reply: Message) -> Message:
        cohort = Cohort.unpack(reply.content)
        if reply.metadata.message_type == "train":
            seen["train"] += 1
        number = seen["train"] + (stage == "share")
        kind = {"share": "query.secure", "train": "train"}.get(stage, "query.secure")
        parts = dict(cohort.parts)
        if client in parts and number in rounds and reply.metadata.message_type == kind:
            if stage == "train":
                del parts[client]
            elif stage in parts[client]:
                parts[client].pop(stage)
        reply.content = Cohort(parts, cohort.errors, cohort.header, cohort.total).pack()
        return reply

    return tamper
