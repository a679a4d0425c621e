"""Whatever the strategy, an answer that must not count does not: the client is named, the model
that of a run in which it said nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from conf.compose import CONFIG_DIR
from task.wire import Cohort
from tests.conftest import Ran, run_nodes
from tests.server_app.test_faults import claim, put, spoil

STRATEGIES = sorted(path.stem for path in (CONFIG_DIR / "strategy").glob("*.yaml"))
SHORT = ("rounds=1", "model.hidden=[8]", "train.epochs=1")
EVERYBODY = {"fedbuff": ("strategy.buffer=4", "strategy.concurrency=4")}
"""What lets all four train in the first round, where a strategy would have fewer."""
SHAPE = (8, 32)
LIAR = "va"


def silent(reply: Message) -> Message:
    """Let the client say nothing."""
    if reply.metadata.message_type == "train":
        cohort = Cohort.unpack(reply.content)
        parts = {client: part for client, part in cohort.parts.items() if client != LIAR}
        reply.content = replace(cohort, parts=parts).pack()
    return reply


def twice(reply: Message) -> list[Message]:
    """Let its node answer twice, the second time the other way round."""
    found = LIAR in Cohort.unpack(reply.content).parts
    if reply.metadata.message_type != "train" or not found:
        return [reply]
    return [reply, spoil(LIAR, put(np.zeros(SHAPE, np.float32)))(_copy(reply))]


def _copy(reply: Message) -> Message:
    copy = Message(Cohort.unpack(reply.content).pack(), reply_to=reply)
    copy.metadata.__dict__.update(reply.metadata.__dict__)
    return copy


FAULTS: dict[str, tuple[Callable[[Message], Any], str]] = {
    "NaN": (spoil(LIAR, put(np.full(SHAPE, np.nan, np.float32))), "NaN or infinity"),
    "infinity": (spoil(LIAR, put(np.full(SHAPE, -np.inf, np.float32))), "NaN or infinity"),
    "a billion examples": (spoil(LIAR, claim(10**9)), "claims 1000000000 examples"),
    "shape": (spoil(LIAR, put(np.zeros((3, 3), np.float32))), "shape (3, 3)"),
    "type": (spoil(LIAR, put(np.zeros(SHAPE, np.float64))), "type float64"),
    "twice": (twice, "answered more than once"),
}


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Ran]:
    """Return the run of a strategy in which the client says nothing."""

    @cache
    def run(strategy: str) -> Ran:
        directory: Path = tmp_path_factory.mktemp(strategy)
        told = (*SHORT, f"strategy={strategy}", *EVERYBODY.get(strategy, ()))
        return run_nodes(directory, *told, nodes=4, tamper=silent)

    return run


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_is_excluded_and_named(
    strategy: str, fault: str, federate: Callable[..., Ran], without: Callable[[str], Ran]
) -> None:
    change, reason = FAULTS[fault]
    told = (*SHORT, f"strategy={strategy}", *EVERYBODY.get(strategy, ()))
    ran = federate(*told, nodes=4, tamper=change)
    line = ran.rounds[0]
    assert set(line["failed"]) == {LIAR}
    assert reason in line["failed"][LIAR]
    assert ran.model == without(strategy).model
