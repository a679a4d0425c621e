"""What others may send or leave on a disk, at random; and who has to stand it."""

from __future__ import annotations

import contextlib
import json
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import strategies as st

from conf.compose import compose, split_overrides
from conf.errors import FedproofError
from conf.schema import FederationConfig
from server_app.compat import adopt_identity, stamp
from server_app.deploy.federation import read_federation
from server_app.evidence.events import PREFIX, parse
from server_app.federation.roster import LONGEST_ID, Roster, read_reply
from server_app.federation.validation import (
    InvalidAnswerError,
    Reference,
    check_metrics,
    check_statistics,
    decode,
)
from server_app.privacy.account import Account
from task.arrays import array_of, record_of
from task.audit import AuditLog
from task.compression import compressors_of
from task.compression.base import Layout as Compressed
from task.compression.base import MalformedError
from task.identity import Identity, read_roster
from task.layouts import Layout
from task.parcel import PARCEL, is_parcel, wrap
from task.privacy.ledger import Ledger
from task.rules import read_rules
from task.secagg.session import Advert
from task.wire import Cohort, WireError, blob, records

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
SCALARS = (
    st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=8) | st.binary(max_size=8)
)
ARRAYS = st.builds(
    Array,
    st.sampled_from(["float32", "float64", "int8", "O", "V9", "<U3", "nonsense", ""]),
    st.lists(st.integers(-2, 2**40), max_size=3).map(tuple),
    st.sampled_from(["numpy.ndarray", "torch.tensor", "pickle"]),
    st.binary(max_size=80) | st.just(bytes(array_of(np.ones((2, 2), np.float32)).data)),
)
RECORDS = st.one_of(
    st.dictionaries(st.sampled_from(["w", "b", "total"]), ARRAYS, max_size=2).map(
        record_of
    ),
    st.dictionaries(st.sampled_from(["num-examples", "loss"]), st.integers(-9, 99) | st.floats())
    .map(MetricRecord),
    st.dictionaries(st.sampled_from(["server-round", "clip", "refused", "a"]), SCALARS)
    .map(ConfigRecord),
)  # fmt: skip
NAMES = ["r0", "r1", "arrays", "config", "metrics", "statistics", "secure"]
LAYOUTS = JSON | st.dictionaries(
    st.sampled_from(["cleveland", "va"]),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(NAMES)),
)
KEYS = [
    "lineage",
    "shared",
    "stack",
    "sum_unit",
    "clients",
    "train",
    "test",
    "describes",
    "refused",
]
HEADERS = st.dictionaries(st.sampled_from(KEYS), JSON)


@st.composite
def contents(draw: st.DrawFn, **header: Any) -> RecordDict:
    """Return a message's content that is a cohort, nearly one, or none."""
    content = RecordDict(draw(st.dictionaries(st.sampled_from(NAMES), RECORDS, max_size=4)))
    told = {
        "layout": json.dumps(draw(LAYOUTS)), "errors": json.dumps(draw(JSON)),
        "header": json.dumps(draw(HEADERS) | header),
    }  # fmt: skip
    if draw(st.booleans()):
        told["errors"] = "{}"
    if draw(st.integers(0, 9)):
        content["cohort"] = ConfigRecord(told)
    return _parcel(draw, content) if draw(st.booleans()) else content


def _parcel(draw: st.DrawFn, content: RecordDict) -> RecordDict:
    """Return a content as a parcel that may have been tampered with."""
    parcel = wrap(content)
    if is_parcel(parcel) and draw(st.booleans()):
        told = st.fixed_dictionaries({}, optional={
            "index": JSON.map(json.dumps) | st.text(max_size=20),
            "records": st.binary(max_size=40), "values": st.binary(max_size=40) | SCALARS,
        })  # fmt: skip
        for key, value in draw(told).items():
            parcel[PARCEL][key] = value
    return parcel


def unpack(content: RecordDict) -> None:
    """Read a cohort, or refuse it."""
    with contextlib.suppress(WireError):
        Cohort.unpack(content)


def reply(content: RecordDict) -> None:
    """Read a node's reply at the server, or refuse it."""
    adopt_identity(1)
    asked = stamp(Message(RecordDict(), dst_node_id=7, message_type="train"))
    try:
        cohort = read_reply(Message(content, reply_to=asked), {})
    except WireError:
        return
    reference = Reference(record_of({"w": array_of(np.ones((2, 2), np.float32))}))
    for part in cohort.parts.values():
        try:
            reference.check_update(part, 50)
        except InvalidAnswerError:
            continue
        (model,) = records(part, ArrayRecord)
        values = decode(model["w"], "w")
        assert values.shape == (2, 2) and np.isfinite(values).all()
        assert 1 <= int(str(check_metrics(part, 50)["num-examples"])) <= 50
    for part in cohort.parts.values():
        try:
            sums = check_statistics(part)
        except InvalidAnswerError:
            continue
        assert all(np.isfinite(v) for values in sums.values() for v in values)


def join(content: RecordDict) -> None:
    """Learn from a node whom it serves, or refuse it."""

    class Alone:
        """A Grid with one node."""

        def get_node_ids(self) -> list[int]:
            return [7]

        def send_and_receive(self, messages: list[Message], *, timeout: float) -> list[Message]:
            del timeout
            return [Message(content, reply_to=stamp(messages[0]))]

    adopt_identity(1)
    roster = Roster(FederationConfig(), {})
    with contextlib.suppress(FedproofError):
        roster.gather(Alone())  # type: ignore[arg-type]
        for client, member in roster.members.items():
            assert client.isprintable() and len(client) <= LONGEST_ID
            assert min(member.train, member.test) >= 0


def hidden(record: ConfigRecord) -> None:
    """Read what a secure answer says in clear, or refuse it."""
    with contextlib.suppress(WireError):
        Layout.unpack(record)
    with contextlib.suppress(WireError, FedproofError):
        Advert.unpack("va", blob(record, "advert")).require_signed()
    with contextlib.suppress(InvalidAnswerError):
        Account(compose(("privacy=record_dp", "privacy.sigma=1"))).check(
            RecordDict({"privacy": record})
        )


COMPRESSORS = {
    name: compressors_of(compose((f"compression={name}",)))[0]
    for name in ("bf16", "fp16", "int8", "powersgd", "quantize", "random_mask", "topk")
}
SHAPES = Compressed(((5, 4), (4,), (3, 4), (3,)))
PACKETS = {
    name: up.encode(torch.ones(SHAPES.size), SHAPES, {}, 1)[0] for name, up in COMPRESSORS.items()
}


def filled(kind: str, shape: tuple[int, ...], value: float) -> np.ndarray[Any, Any]:
    """Return an array, also of a type that cannot hold the value."""
    with np.errstate(all="ignore"):
        return np.full(shape, value).astype(kind)


PACKED = st.builds(
    filled,
    st.sampled_from(["f4", "f2", "f8", "i1", "u1", "u2", "i8", "u4", "b1"]),
    st.sampled_from([(0,), (1,), (3,), (39,), (5, 4), (1, 1), ()]),
    st.sampled_from([0.0, 1.0, -1.0, 255.0, float("nan"), float("inf"), 1e30]),
)


@st.composite
def packets(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Return a compressor and a packet of its own, some of which is something else."""
    name = draw(st.sampled_from(sorted(COMPRESSORS)))
    packet = dict(PACKETS[name])
    for key in draw(st.lists(st.sampled_from([*packet, "more"]), max_size=3)):
        packet[key] = draw(PACKED | st.just(packet.get(key, np.zeros(2))))
    for key in draw(st.lists(st.sampled_from(sorted(packet)), max_size=1)):
        packet.pop(key)
    return name, packet


def packet(told: tuple[str, dict[str, Any]]) -> None:
    """Read a compressed update, or refuse it."""
    name, values = told
    with contextlib.suppress(MalformedError), np.errstate(all="ignore"):
        update = COMPRESSORS[name].decode(values, SHAPES, 1)
        assert update.shape == (SHAPES.size,)


def log_line(text: str) -> None:
    """Read a run's log: nothing but an event that begins a line is one."""
    event = parse(text)
    assert event is None or (text.startswith(PREFIX) and "event" in event)


def overrides(text: str) -> None:
    """Compose what a run says, or refuse it in a sentence."""
    with contextlib.suppress(FedproofError):
        compose(split_overrides(text))


def parser(read: Callable[[Path], object]) -> Callable[[bytes], None]:
    """Return who reads a file of random bytes, or refuses it in a sentence."""

    def parse(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file"
            path.write_bytes(content)
            with contextlib.suppress(FedproofError):
                read(path)

    return parse


WORDS = st.sampled_from(
    ["task", "train.lr", "rounds", "privacy", "+x", "~task", "task@a", "hydra.run.dir", "a/b", ""]
)
VALUES = st.sampled_from(
    ["=", "=1", "=[", "=${a}", "=healthcare", "=../x", "={a:1}", "=null", "=nan"]
)
TEXTS = st.one_of(
    st.text(max_size=30),
    st.lists(st.tuples(WORDS, VALUES).map("".join), max_size=3).map(shlex.join),
)
LINES = st.one_of(
    st.binary(max_size=60),
    st.lists(JSON.map(json.dumps), max_size=3).map(lambda lines: "\n".join(lines).encode()),
    st.text(alphabet="tasks: [a]{},-#'\n&*!0123456789e", max_size=40).map(str.encode),
)
HIDDEN = st.dictionaries(
    st.sampled_from(["size", "names", "lengths", "advert", "sigma", "rate", "steps"]),
    SCALARS | st.lists(st.text(max_size=4), max_size=3) | st.lists(st.integers(-2, 2**60)),
).map(ConfigRecord)
LOG_LINES = st.tuples(
    st.sampled_from(["", PREFIX, f"WARNING: {PREFIX}"]),
    JSON.map(json.dumps) | st.text(max_size=20) | st.just('{"event": "file"}'),
).map("".join)
TARGETS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None]]] = {
    "cohort": (contents(), unpack),
    "reply": (contents(), reply),
    "join": (contents(), join),
    "hidden": (HIDDEN, hidden),
    "packet": (packets(), packet),
    "log line": (LOG_LINES, log_line),
    "overrides": (TEXTS, overrides),
    "policy": (LINES, parser(read_rules)),
    "federation": (LINES, parser(read_federation)),
    "roster": (LINES, parser(read_roster)),
    "identity": (LINES, parser(Identity.read)),
    "ledger": (LINES, parser(lambda path: Ledger(path).entries())),
    "audit": (LINES, parser(lambda path: AuditLog(path).receipts())),
}
"""By name: what is made up, and who must stand it. A silo's handlers: `tests.client_app.silo`."""
