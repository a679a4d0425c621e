"""Rows that stand where names are expected: headers, identifiers, names of files and of clients.

A silo's real ClientApp answers a real ServerApp, which records every message and all that it logs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from conf.errors import FedproofError
from task.identity import Identity
from task.parcel import is_parcel, unwrap
from task.wire import Cohort
from tests.conftest import run_nodes
from tests.task.test_table_checks import NO_HEADER, people

NAMES = ("a", "b", "c")
OPEN = """
tasks: [tabular]
client: natural
privacy: {mechanism: any}
aggregation: {mechanism: any}
metrics: {allowed: [any], sums: true, min_rows: 1}
"""
STRICT = "tasks: [tabular]\n"
PLAIN = ("task=tabular", "task.target=ill", "rounds=1", "model=logistic")
PROTECTED = (
    *PLAIN, "task.kind=binary", "task.scaling=local", "task.columns=[age,weight]",
    "task.categories.ill=[no,yes]", "privacy=record_dp", "privacy.sigma=2",
    "privacy.evaluation=noised", "aggregation=secagg", "train.steps=2",
)  # fmt: skip


@dataclass
class Wire:
    """All that left the silos, and all that the server said."""

    records: list[logging.LogRecord]
    replies: list[Message] = field(default_factory=list)
    error: str = ""

    def take(self, reply: Message) -> Message:
        self.replies.append(reply)
        return reply

    @property
    def text(self) -> str:
        parts = [self.error]
        parts += [r.getMessage() for r in self.records if r.name.startswith("server_app")]
        for reply in self.replies:
            content = unwrap(reply.content) if is_parcel(reply.content) else reply.content
            parts += [_text(content)]
            cohort = Cohort.unpack(reply.content)
            parts += [json.dumps(cohort.header), json.dumps(dict(cohort.errors))]
        return "\n".join(parts)


def _text(content: RecordDict) -> str:
    records = (r for r in content.values() if isinstance(r, ConfigRecord))
    return "".join(f"{key}={value}" for record in records for key, value in record.items())


@pytest.fixture
def attack(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Wire]]:
    """Run the server on silos with files of one's own; return all that it learned."""
    keys = {name: Identity() for name in NAMES}
    lines = "".join(f"{key.public.hex()} {name}\n" for name, key in keys.items())
    (tmp_path / "roster").write_text(lines, encoding="utf-8")

    def run(policy: str, overrides: tuple[str, ...], data: list[Path], **more: Any) -> Wire:
        nodes = []
        for name, path in zip(NAMES, data, strict=False):
            folder = tmp_path / f"kit-{name}"
            folder.mkdir()
            (folder / "policy.yaml").write_text(policy, encoding="utf-8")
            keys[name].write(folder / "identity.key")
            places = ("state", "ledger", "audit", "policy.yaml", "identity.key")
            config = {place.partition(".")[0]: str(folder / place) for place in places}
            config |= {"data": str(path), "roster": str(tmp_path / "roster"), "client": name}
            nodes.append({k: v for k, v in (config | more).items() if v is not None})
        caplog.clear()
        wire = Wire(caplog.records)
        try:
            run_nodes(tmp_path / "run", *overrides, nodes=nodes, tamper=wire.take)
        except FedproofError as error:
            wire.error = str(error)
        wire.error += capsys.readouterr().out
        return wire

    with caplog.at_level(logging.INFO):
        yield run


def tables(folder: Path, **more: Any) -> list[Path]:
    made = []
    for number in range(3):
        path = folder / f"ward-{number}.csv"
        people().assign(**more).to_csv(path, index=False)
        made.append(path)
    return made


def known(wire: Wire, secrets: list[str]) -> list[str]:
    text = wire.text
    assert wire.replies, "nobody was asked"
    return [secret for secret in secrets if secret in text]


@pytest.mark.parametrize("case", NO_HEADER)
@pytest.mark.parametrize("policy", [OPEN, STRICT], ids=["open", "strict"])
def test_the_first_row_of_a_file_without_a_header_stays(tmp_path, attack, case, policy):
    folder = tmp_path / "secret-place"
    folder.mkdir()
    paths = [folder / f"{i}.csv" for i in range(3)]
    for path in paths:
        path.write_text(NO_HEADER[case], encoding="utf-8")
    first = [cell for cell in NO_HEADER[case].splitlines()[0].split(",") if len(cell) > 2]
    wire = attack(policy, PLAIN if policy is OPEN else PROTECTED, paths)
    assert known(wire, [*first, "secret-place"]) == []


def test_a_server_that_guesses_a_value_of_the_first_row_gets_no_other(tmp_path, attack):
    """The target is a diagnosis: where the first row has it, all its cells would be columns."""
    paths = [tmp_path / f"{i}.csv" for i in range(3)]
    for path in paths:
        path.write_text(NO_HEADER["date of birth"], encoding="utf-8")
    wire = attack(OPEN, (*PLAIN, "task.target=cholera", "task.kind=multiclass"), paths)
    assert known(wire, ["Jane", "1961", "63", "flu", "Smith"]) == []


@pytest.mark.parametrize(
    "override",
    ["task.target=absent", "task.client=absent", "task.drop=[absent]", "task.categorical=[absent]"],
)
def test_asking_for_an_absent_column_tells_nothing(tmp_path, attack, override):
    folder = tmp_path / "secret-place"
    folder.mkdir()
    wire = attack(OPEN, (*PLAIN, override), tables(folder, cholera=1))
    assert wire.error and known(wire, ["cholera", "weight", "secret-place", "ward-0"]) == []


@pytest.mark.parametrize("columns", ["[absent]", "[absent,age]"])
def test_asking_for_an_absent_declared_column_tells_nothing(tmp_path, attack, columns):
    told = tuple(o for o in PROTECTED if not o.startswith("task.columns"))
    wire = attack(STRICT, (*told, f"task.columns={columns}"), tables(tmp_path, cholera=1))
    assert wire.error and known(wire, ["cholera", "'number'", str(tmp_path / "ward")]) == []


def test_an_identifier_does_not_leave_a_protected_run(tmp_path, attack):
    wire = attack(STRICT, PROTECTED, tables(tmp_path))
    kinds = {reply.metadata.message_type for reply in wire.replies}
    assert "train" in kinds and "FEDPROOF-EVENT" not in wire.error
    assert known(wire, [*people()["name"], "ward 3"]) == []


def test_categories_must_be_declared(tmp_path, attack):
    told = tuple(o for o in PROTECTED if not o.startswith(("task.columns", "task.categories")))
    wire = attack(STRICT, told, tables(tmp_path))
    assert "task.categories.COLUMN=[...]" in wire.error
    assert not wire.replies or known(wire, [*people()["name"], "weight"]) == []


@pytest.mark.parametrize("run", [PLAIN, PROTECTED], ids=["plain", "protected"])
def test_a_column_of_patients_names_makes_no_clients(tmp_path, attack, run):
    policy = STRICT if run is PROTECTED else OPEN.replace("client: natural", "client: file")
    wire = attack(policy, (*run, "task.client=name"), tables(tmp_path), client=None)
    assert "policy" in wire.text and known(wire, [*people()["name"]]) == []


def test_names_of_files_are_no_clients_unless_the_policy_says_so(tmp_path, attack):
    folder = tmp_path / "clinic"
    folder.mkdir()
    for name in ("Jane Doe", "John Smith"):
        people().to_csv(folder / f"{name}.csv", index=False)
    (folder / "._Ann Lee.csv").write_bytes(b"\0\5\x16\7")
    wire = attack(OPEN.replace("client: natural", "client: file"),
                  (*PLAIN, "task.drop=[name]"), [folder], client=None)  # fmt: skip
    assert "clinic" in wire.text and known(wire, ["Jane", "John", "Ann Lee"]) == []


def test_a_silo_derives_what_clients_share_from_the_settings(tmp_path):
    """Whatever a server says of columns and categories: a silo's model has the declared ones."""
    from flwr.app import Context

    from client_app.node import node_of
    from client_app.request import Request
    from client_app.site import site_of

    (path, *_) = tables(tmp_path)
    (tmp_path / "policy.yaml").write_text(STRICT, encoding="utf-8")
    config = {"data": str(path), "policy": str(tmp_path / "policy.yaml"), "client": "a"}
    context = Context(1, 7, config, RecordDict(), {"overrides": " ".join(PROTECTED)})
    node = node_of(site_of(context))
    lie = {"columns": [{"name": "name", "missing": False, "values": ["abcde0 Doe"]}],
           "target": {"kind": "binary", "classes": ["no", "yes"]}}  # fmt: skip
    request = Request.__new__(Request)
    object.__setattr__(request, "agreed", lie)
    agreed = node.agreement(request)["shared"]
    assert agreed == node.source.task.derive_shared() != lie
    assert [column["name"] for column in agreed["columns"]] == ["age", "weight"]
