"""What hostile clients and nodes put in place of their answers."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from task.wire import Cohort

LIAR, NODE = "va", 103
"""A client, and the last of four nodes, which serves it."""
SHORT = ("rounds=1", "model.hidden=[8]", "train.epochs=1")
Edit = Callable[[Cohort], Cohort]
Lie = Callable[[RecordDict], object]

UGLY = (
    "\x1b[2J\x1b]0;owned\x07\r\n[/bold][link=x]\u202e<script>alert(1)</script>$\\frac{"
    + "A" * 4_000_000
)
"""What a terminal, a log, rich's markup, a page and a formula would act on, and far too much."""


def edited(kind: str, edit: Edit, node: int = NODE) -> Callable[[Message], Message]:
    """Return a fault: a node's answers of one kind are changed on the way."""

    def tamper(reply: Message) -> Message:
        if (reply.metadata.message_type, reply.metadata.src_node_id) == (kind, node):
            reply.content = edit(Cohort.unpack(reply.content)).pack()
        return reply

    return tamper


def lied(kind: str, lie: Lie, client: str = LIAR, node: int = NODE) -> Callable[[Message], Message]:
    """Return a fault: one client's answers of one kind are changed by `lie`."""

    def edit(cohort: Cohort) -> Cohort:
        if client in cohort.parts:
            lie(cohort.parts[client])
        return cohort

    return edited(kind, edit, node)


def silent(kind: str, node: int = NODE) -> Callable[[Message], Message | None]:
    """Return a fault: a node does not answer what is of one kind."""

    def tamper(reply: Message) -> Message | None:
        mine = (reply.metadata.message_type, reply.metadata.src_node_id) == (kind, node)
        return None if mine else reply

    return tamper


def with_header(**fields: Any) -> Edit:
    """Return an edit of a node's header."""
    return lambda cohort: replace(cohort, header={**cohort.header, **fields})


def put(array: Array, key: str = "1.weight") -> Lie:
    def lie(part: RecordDict) -> None:
        arrays = part["arrays"]
        assert isinstance(arrays, ArrayRecord)
        arrays[key] = array

    return lie


def tell(**figures: Any) -> Lie:
    def lie(part: RecordDict) -> None:
        metrics = part["metrics"]
        assert isinstance(metrics, MetricRecord)
        for key, value in figures.items():
            metrics[key] = value

    return lie


class Trap:
    """Whoever unpickles it makes a folder."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


def trap(path: Path) -> bytes:
    return pickle.dumps(Trap(path))


def header(shape: str, descr: str = "'<f4'") -> bytes:
    """Return the head of a file of numpy's that claims a shape."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00v\x00" + text.ljust(117) + b"\n"


SHAPE = (8, 32)
ARRAYS = {
    "a header that claims a terabyte": Array(
        "float32", SHAPE, "numpy.ndarray", header("(250000000000,)")
    ),
    "a terabyte by its own word": Array("float32", (10**12,), "numpy.ndarray", header("(8, 32)")),
    "a negative shape": Array(
        "float32", (-8, -32), "numpy.ndarray", header("(-8, -32)") + bytes(1024)
    ),
    "a million axes": Array("float32", (2**62,) * 10**6, "numpy.ndarray", b"x"),
    "objects": Array("O", SHAPE, "numpy.ndarray", header("(8, 32)", "'|O'") + bytes(2048)),
    "a header that is code": Array(
        "float32", SHAPE, "numpy.ndarray", header("(__import__('os').getpid(),)") + bytes(1024)
    ),
    "a tensor of torch": Array("float32", SHAPE, "torch.tensor", b"PK\x03\x04" + bytes(999)),
    "no type of numpy": Array("float32, float32", SHAPE, "numpy.ndarray", bytes(999)),
    "nothing": Array("float32", SHAPE, "numpy.ndarray", b""),
    "NaN": Array(np.full(SHAPE, np.nan, np.float32)),
    "infinity": Array(np.full(SHAPE, -np.inf, np.float32)),
    "half as precise": Array(np.zeros(SHAPE, np.float16)),
    "complex": Array(np.zeros(SHAPE, np.complex64)),
    "one row more": Array(np.zeros((9, 32), np.float32)),
}  # fmt: skip


def again(part: RecordDict) -> None:
    """Hold a second model."""
    part["more"] = part["arrays"]


def turned(part: RecordDict) -> None:
    """Name the same arrays in another order."""
    arrays = part["arrays"]
    assert isinstance(arrays, ArrayRecord)
    told = dict(arrays.items())
    part["arrays"] = ArrayRecord({key: told[key] for key in reversed(told)})


ANSWERS: dict[str, tuple[Lie, str]] = {
    **{name: (put(array), "'1.weight'") for name, array in ARRAYS.items()},
    "an array too many": (put(Array(np.zeros(1, np.float32)), "extra"), "other parameters"),
    "an array too few": (lambda part: part["arrays"].__delitem__("1.weight"), "other parameters"),
    "other order": (turned, "other parameters"),
    "two models": (again, "exactly one model"),
    "metrics for a model": (
        lambda part: part.__setitem__("arrays", MetricRecord({"a": 1.0})), "exactly one"
    ),
    "no metrics": (lambda part: part.__delitem__("metrics"), "one set of metrics"),
    "2^63 rows": (tell(**{"num-examples": 2**63 - 1}), "claims 9223372036854775807 examples"),
    "no rows": (tell(**{"num-examples": 0}), "claims 0 examples"),
    "rows that are owed": (tell(**{"num-examples": -1}), "claims -1 examples"),
    "NaN rows": (tell(**{"num-examples": float("nan")}), "claims nan examples"),
    "a list of rows": (tell(**{"num-examples": [1]}), "claims [1] examples"),
    "a loss of infinity": (tell(loss=float("inf")), "'loss' is not a finite number"),
    "100,000 metrics": (tell(**{f"m{i}": 0.0 for i in range(100_000)}), "tells 10000"),
    "a metric named like a column": (tell(client=1.0), "none may have: 'client'"),
    "a metric named to be printed": (tell(**{UGLY: 1.0}), "none may have"),
}  # fmt: skip
"""Of a client in training: what it says, and what is said of it."""
