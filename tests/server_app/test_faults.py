"""Clients and nodes that send nonsense are left out and named, and nothing of it gets in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message

from server_app import checkpoint
from task.wire import Cohort

SHORT = ("rounds=3", "model.hidden=[8]")


def rewrite(reply: Message, change: Callable[[Cohort], Cohort]) -> Message:
    """Return a reply whose cohort was changed on the way."""
    cohort = change(Cohort.unpack(reply.content))
    reply.content = cohort.pack()
    return reply


def spoil(client: str, change: Callable[[Any], None]) -> Callable[[Message], Message]:
    """Return a fault: one client's training answer is changed by `change`."""

    def tamper(reply: Message) -> Message:
        if reply.metadata.message_type != "train":
            return reply

        def edit(cohort: Cohort) -> Cohort:
            if client in cohort.parts:
                change(cohort.parts[client])
            return cohort

        return rewrite(reply, edit)

    return tamper


def put(values: np.ndarray, key: str = "1.weight") -> Callable[[Any], None]:
    def change(part: Any) -> None:
        part["arrays"][key] = Array(values)

    return change


def claim(count: Any) -> Callable[[Any], None]:
    def change(part: Any) -> None:
        part["metrics"]["num-examples"] = count

    return change


SHAPE = (8, 32)
FAULTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "nan": (put(np.full(SHAPE, np.nan, np.float32)), "NaN or infinity"),
    "infinity": (put(np.full(SHAPE, np.inf, np.float32)), "NaN or infinity"),
    "shape": (put(np.zeros((3, 3), np.float32)), "shape (3, 3)"),
    "dtype": (put(np.zeros(SHAPE, np.float64)), "type float64"),
    "extra parameter": (put(np.zeros(1, np.float32), "extra"), "other parameters"),
    "no model": (lambda part: part.pop("arrays"), "exactly one model"),
    "garbage": (
        lambda part: part["arrays"].__setitem__(
            "1.weight", Array("float32", SHAPE, "numpy.ndarray", b"garbage")
        ),
        "cannot be decoded",
    ),
    "negative examples": (claim(-5), "claims -5 examples"),
    "zero examples": (claim(0), "claims 0 examples"),
    "a billion examples": (claim(10**9), "claims 1000000000 examples"),
    "fractional examples": (claim(1.5), "claims 1.5 examples"),
    "loss": (lambda part: part["metrics"].__setitem__("loss", float("nan")), "'loss'"),
}


def _silent(client: str) -> Callable[[Message], Message]:
    def tamper(reply: Message) -> Message:
        if reply.metadata.message_type != "train":
            return reply
        return rewrite(
            reply,
            lambda c: Cohort(
                {k: v for k, v in c.parts.items() if k != client}, {client: "broken"}, c.header
            ),
        )

    return tamper


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_client_is_excluded_and_named(fault: str, federate: Callable[..., Any]) -> None:
    change, reason = FAULTS[fault]
    # A client alone on its node sends its own model; see below for those that are added up.
    ran = federate("rounds=1", "model.hidden=[8]", nodes=4, tamper=spoil("va", change))
    line = ran.rounds[0]
    assert set(line["failed"]) == {"va"}
    assert reason in line["failed"]["va"]
    assert line["answered"] == ["cleveland", "hungary", "switzerland"]
    without = federate("rounds=1", "model.hidden=[8]", nodes=4, tamper=_silent("va"))
    assert ran.model == without.model


def total(values: np.ndarray, name: str = "total") -> Callable[[Cohort], Cohort]:
    def change(cohort: Cohort) -> Cohort:
        return replace(cohort, total=ArrayRecord({name: Array(values)}))

    return change


def edit_part(client: str, change: Callable[[Any], None]) -> Callable[[Cohort], Cohort]:
    def edit(cohort: Cohort) -> Cohort:
        change(cohort.parts[client])
        return cohort

    return edit


SIZE = 273
BAD_TOTALS: dict[str, tuple[Callable[[Cohort], Cohort], str]] = {
    "nan": (total(np.full(SIZE, np.nan)), "node's sum holds NaN"),
    "length": (total(np.zeros(SIZE - 1)), "node's sum does not fit"),
    "dtype": (total(np.zeros(SIZE, np.float32)), "node's sum does not fit"),
    "name": (total(np.zeros(SIZE), "else"), "node's sum has other parameters"),
    "weight": (edit_part("va", claim(10**9)), "node's sum holds an invalid answer"),
    "none": (lambda cohort: replace(cohort, total=None), "exactly one model"),
}


@pytest.mark.parametrize("fault", BAD_TOTALS)
def test_a_bad_sum_costs_all_clients_in_it(fault: str, federate: Callable[..., Any]) -> None:
    change, reason = BAD_TOTALS[fault]

    def tamper(reply: Message) -> Message:
        training = reply.metadata.message_type == "train"
        # The second of two nodes serves hungary and va.
        return rewrite(reply, change) if training and reply.metadata.src_node_id == 101 else reply

    ran = federate("rounds=1", "model.hidden=[8]", nodes=2, tamper=tamper)
    assert ran.rounds[0]["answered"] == ["cleveland", "switzerland"]
    assert set(ran.rounds[0]["failed"]) == {"hungary", "va"}
    assert reason in ran.rounds[0]["failed"]["hungary"]


def test_sums_travel_instead_of_models(federate: Callable[..., Any]) -> None:
    held: list[tuple[int, bool]] = []

    def look(reply: Message) -> Message:
        if reply.metadata.message_type == "train":
            cohort = Cohort.unpack(reply.content)
            models = sum(len(part.array_records) for part in cohort.parts.values())
            held.append((models, cohort.total is not None))
        return reply

    for strategy, nodes in (("fedavg", 1), ("fedavg", 4), ("fedmedian", 1)):
        federate("rounds=1", "model.hidden=[8]", f"strategy={strategy}", nodes=nodes, tamper=look)
    assert held == [(0, True), *[(1, False)] * 4, (4, False)]


@pytest.mark.parametrize("strategy", ["fedavg", "fedmedian", "fedadam"])
def test_nan_does_not_reach_any_strategy(strategy: str, federate: Callable[..., Any]) -> None:
    tamper = spoil("hungary", put(np.full(SHAPE, np.nan, np.float32)))
    ran = federate(*SHORT, f"strategy={strategy}", nodes=4, tamper=tamper)
    tensors, _ = checkpoint.load(ran.directory / "model.safetensors")
    assert all(np.isfinite(value).all() for value in tensors.values())
