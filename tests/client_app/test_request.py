"""A message is read in one place, field by field; whoever reads another one fails here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from client_app.request import Kind, Request, SimulationHints, parse
from server_app.compat import adopt_identity, stamp
from task.arrays import array_of, record_of
from task.wire import Cohort, WireError
from tests.fuzzing import JSON, contents

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "client_app"
HELPERS = ("task/wire.py", "task/layouts.py", "task/parcel.py")
"""What messages, or records of them, are handed to outside of the client."""

MESSAGE = {
    "client_app/answering.py": {".metadata", ".content"},
    "client_app/app.py": {".metadata"},
    "client_app/request.py": {
        ".content", ".header", ".metadata", "Cohort.unpack", "checkpointed", "clip", "config",
        "lineage", "rounds", "rows", "secure", "shared", "stack", "stacks", "sum_from", "sum_unit",
    },
    "client_app/secure/he.py": {
        "Layout.unpack", "clients", "decrypt", "identities", "identity", "leader", "number",
        "offers", "purpose", "seal", "sealed", "sums",
    },
    "client_app/secure/secagg.py": {
        "Advert.unpack", "FreshKeys.unpack", "Member.unpack", "adverts", "agree", "alive",
        "clients", "cohort", "digests", "from", "number", "purpose", "root", "sealed", "share",
        "signatures", "signers", "unmask",
    },
    "task/layouts.py": {"lengths", "names", "size"},
    "task/parcel.py": {"index", "records", "values"},
    "task/wire.py": {".header"},
}  # fmt: skip
"""What each module reads of messages: the whole of what a server has a say in."""
OWN = {
    # Of node configs, run configs, and what the SuperLink says of a run.
    "audit", "client", "config", "data", "held-out", "num-partitions", "overrides", "partition-id",
    "run-submitter", "code", "ledger-head", "evaluation",
    # Of the silo's own ledger, secrets, settings and answers.
    "curve", "dimension", "kind", "ledger-epsilon", "name", "num-examples", "path", "round", "run",
    "session", "shared", "task", "done", "encrypted", "keys", "member", "members", "models",
    "offered", "placement", "ring", "statistics", "metrics", "privacy",
}  # fmt: skip
"""Keys of what is the silo's own, not the server's: any module may read them."""
USERS = {
    "agreed": {"node"},
    "checkpointed": {"packer", "training"},
    "clip": {"training", "guard", "leaving"},
    "comparisons": {"alone", "request"},
    "digests": {"answering", "site", "exit", "gate"},
    "exchanges": {"secure/serving", "request"},
    "groups": {"training"},
    "hints": {"leaving", "training"},
    "lineage": {"guard", "moment", "packer", "training", "evaluating"},
    "sum_from": {"leaving"},
    "sum_unit": {"leaving"},
    "vectors": {"training"},
}
"""Where fields of a request are used that are the server's word."""


def reads(source: str) -> Iterator[str]:
    """Yield the names of fields that a module reads of anything like a record or a message."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr="get" | "pop" | "setdefault"), args=[key, *_]):
                yield from _text(key)
            case ast.Call(
                func=ast.Name("config" | "blob" | "listed" | "numbered"), args=[_, *keys]
            ):
                for key in keys:
                    yield from _text(key)
            case ast.Call(func=ast.Attribute(value, "unpack")):
                yield f"{ast.unparse(value)}.unpack"
            case ast.Call(func=ast.Name("getattr"), args=[_, key, *_]):
                yield from (f".{name}" for name in _text(key))
            case ast.Subscript(slice=key, ctx=ast.Load()):
                yield from _text(key)
            case ast.Compare(left=key, ops=[ast.In() | ast.NotIn()]):
                yield from _text(key)
            case ast.Attribute(attr="header" | "metadata" | "array_records" | "config_records"):
                yield f".{node.attr}"
            case ast.Attribute(value=ast.Name("message"), attr="content"):
                yield ".content"


def _text(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def modules() -> list[str]:
    found = [str(path.relative_to(ROOT)) for path in sorted(FOLDER.rglob("*.py"))]
    # A SuperNode's own plumbing has messages pass, and runs before any is read.
    return [name for name in found if "/warm/" not in name] + list(HELPERS)


@pytest.mark.parametrize("name", modules())
def test_nobody_reads_another_field_of_a_message(name):
    found = set(reads((ROOT / name).read_text(encoding="utf-8")))
    others = found - MESSAGE.get(name, set()) - (OWN if name not in HELPERS else set())
    assert not others, f"{name} reads {sorted(others)}: a server would have a say in that"


@pytest.mark.parametrize(
    "line",
    [
        'size = cohort.header.get("x")',
        'size = cohort.header["x"]',
        'if "x" in cohort.header: pass',
        'size = getattr(cohort, "header")',
        "fields = cohort.header",
        "part = Cohort.unpack(message.content).parts",
        'mu = float(told["config"]["proximal-mu"])',
        'clip = config(told, "training").get("limit")',
        'stack = request.exchanges[client]["stack"]',
        "kind = message.metadata.message_type",
    ],
)
def test_the_walk_bites(line):
    assert set(reads(line)) - OWN


def test_what_is_the_servers_word_is_used_where_it_is_said():
    for path in sorted(FOLDER.rglob("*.py")):
        name = str(path.relative_to(FOLDER)).removesuffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and ast.unparse(node.value).endswith(("request", "asked", "hints"))
        }
        wrong = {field for field in used & USERS.keys() if name not in USERS[field]}
        assert not wrong, f"{name} uses {sorted(wrong)}"


def test_every_field_of_a_request_is_known_here():
    harmless = {"kind", "run", "simulated", "number", "work"}
    assert {field.name for field in fields(Request)} == harmless | (USERS.keys() & {
        field.name for field in fields(Request)
    })  # fmt: skip


def asked(content: RecordDict, kind: str = "train", **config: str) -> Request:
    adopt_identity(1)
    message = stamp(Message(content, dst_node_id=7, message_type=kind))
    return parse(message, Context(4711, 7, dict(config), RecordDict(), {}))


def part(number: object = 3, **more: object) -> RecordDict:
    model = record_of({"w": array_of(np.ones(2, np.float32))})
    return RecordDict({"arrays": model, "config": ConfigRecord({"server-round": number, **more})})


HINTS = {"stack": 2, "stacks": [["va"]], "rows": {"va": 5}, "sum_from": 1}


def test_the_run_is_flowers_and_the_hints_are_a_simulations():
    content = Cohort({"va": part(clip=0.5)}, header={"lineage": [["ab", 0]], **HINTS}).pack()
    simulated, silo = asked(content), asked(content, data="rows.csv")
    assert (simulated.run, simulated.number, simulated.kind) == ("4711", 3, Kind.train)
    assert simulated.hints == SimulationHints(2, [["va"]], {"va": 5}, 1)
    assert silo.hints == SimulationHints() and not silo.simulated
    assert silo.work["va"].clip == 0.5 and silo.lineage == [("ab", 0)]


@pytest.mark.parametrize(
    "numbers", [(1, 2), (0, 0), (-1, -1), (1.0, 1.0), ("1", "1"), (True, True)]
)
def test_a_message_is_about_one_round(numbers):
    content = Cohort({"a": part(numbers[0]), "b": part(numbers[1])}).pack()
    with pytest.raises(WireError):
        asked(content)


@given(content=contents(), kind=st.sampled_from(sorted(Kind)), silo=st.booleans())
def test_any_message_is_a_request_or_refused(content, kind, silo):
    try:
        request = asked(content, kind, **({"data": "x"} if silo else {}))
    except WireError:
        return
    assert request.run == "4711" and request.number >= 0
    assert all(isinstance(work.model, ArrayRecord) for work in request.work.values())
    assert request.sum_unit is None or 0 < request.sum_unit < float("inf")


@given(header=st.dictionaries(st.sampled_from(sorted([*HINTS, "sum_unit", "x"])), JSON))
def test_whatever_a_header_says_for_speed_a_silo_does_not_hear_it(header):
    request = asked(Cohort({"va": part()}, header=header).pack(), data="rows.csv")
    header.pop("sum_unit", None)
    assert request.hints == SimulationHints()
