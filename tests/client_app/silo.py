"""A silo with data, policy, ledger and audit log of its own, and whatever server one likes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from hypothesis.strategies import SearchStrategy

from benchmarks.data import hospitals
from client_app.app import app
from client_app.node import node_of
from client_app.site import site_of
from conf.compose import compose
from conf.digest import code_digest, config_digest
from conf.errors import FedproofError
from server_app.compat import adopt_identity, stamp
from task.arrays import array_of, record_of
from task.audit import AuditLog, Receipt
from task.wire import Cohort
from tests.fuzzing import contents

OPEN = """
tasks: [healthcare]
privacy: {mechanism: any}
aggregation: {mechanism: any}
metrics: {allowed: [any], sums: true, min_rows: 1}
"""
"""A policy that lets plain runs of one task pass."""
SEEDED = {"held-out": "seed"}
"""Node config of a silo whose held-out rows are those of a simulation with the run's seed."""
LINEAGE = [["0123456789abcdef", 0]]
CLIENT = "cleveland"
KINDS = ("query", "train", "evaluate", "query.secure")
"""Of messages to a silo."""


@dataclass
class Silo:
    """One node; `ask` sends it messages."""

    folder: Path
    policy: str = OPEN
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        adopt_identity(1)
        self.data = next(p for p in hospitals.main(self.folder / "data") if CLIENT in p.name)
        self.policy_file = self.folder / "policy.yaml"
        self.policy_file.write_text(self.policy, encoding="utf-8")
        self.audit = AuditLog(self.folder / "audit.jsonl")

    def context(self, overrides: str) -> Context:
        places = {"state": "s", "ledger": "ledgers", "policy": "policy.yaml"}
        config = {key: str(self.folder / place) for key, place in places.items()}
        config |= {"data": str(self.data), "audit": str(self.audit.path), **self.extra}
        return Context(1, 7, config, RecordDict(), {"overrides": overrides})

    def header(self, overrides: str, **more: Any) -> dict[str, Any]:
        """What an honest server would say; nonsense where there are no such settings."""
        try:
            digest = config_digest(compose(tuple(overrides.split())))
        except FedproofError:
            digest = "0"
        return {"config": digest, "code": code_digest(), "shared": {}, "lineage": LINEAGE} | more

    def model(self, overrides: str = "") -> ArrayRecord:
        """The values of a fresh model of the plain run."""
        context = Context(1, 7, {}, RecordDict(), {"overrides": overrides})
        module = node_of(site_of(context)).learner({}).model.module
        return record_of({k: array_of(v.numpy()) for k, v in module.state_dict().items()})

    def part(self, overrides: str = "", number: Any = 1, arrays: Any = None) -> RecordDict:
        model = self.model(overrides) if arrays is None else arrays
        return RecordDict({"arrays": model, "config": ConfigRecord({"server-round": number})})

    def ask(
        self,
        kind: str,
        overrides: str = "",
        parts: Mapping[str, RecordDict] | None = None,
        content: RecordDict | None = None,
        **header: Any,
    ) -> Cohort:
        """Return the silo's answer, as a server would unpack it."""
        if content is None:
            content = Cohort(parts or {}, header=self.header(overrides, **header)).pack()
        message = stamp(Message(content, dst_node_id=7, message_type=kind))
        return Cohort.unpack(app(message, self.context(overrides)).content)

    @property
    def last(self) -> Receipt:
        return self.audit.receipts()[-1]


def nothing_left(answer: Cohort, silo: Silo) -> None:
    """The answer holds no arrays and no metrics, and the audit log says so, too."""
    assert answer.total is None
    for part in answer.parts.values():
        assert not any(isinstance(r, ArrayRecord | MetricRecord) for r in part.values())
    assert not {"clients", "describes", "train", "test"} & set(answer.header)
    assert silo.last.left["bytes"] < 1000 and "norm" not in silo.last.left
    assert "refused" in answer.header or answer.errors


def handler(
    silo: Silo, kind: str
) -> tuple[SearchStrategy[RecordDict], Callable[[RecordDict], None]]:
    """Return what is sent to a silo, and who sends it: no array comes back."""
    honest = silo.header("", lineage=LINEAGE)

    def ask(content: RecordDict) -> None:
        for part in silo.ask(kind, content=content).parts.values():
            assert not any(isinstance(record, ArrayRecord) for record in part.values())

    return contents(**{key: honest[key] for key in ("config", "code")}), ask
