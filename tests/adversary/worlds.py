"""What the neighbouring silos of the fuzzing are: policies, runs, tables, and which row differs."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict

from client_app.app import app
from conf.compose import compose, declared, split_overrides
from conf.digest import code_digest, config_digest
from conf.errors import FedproofError
from server_app.compat import stamp
from task.identity import Identity

NODE, RUN = 7, 1
SPLIT_KEY = "5c" * 32
"""Of the keyed split: the same at both silos, as the same silo with another row would have."""


@dataclass(frozen=True)
class Table:
    """Rows of a made-up silo, and such as may be added to them.

    Attributes
    ----------
    name : str
        Of the task.
    task : str
        Overrides that name the task and its columns.
    file : str
        The silo's file; its client's name follows from it.
    client : str
    header : str or None
    ordinary : callable
        Makes one line.
    special : tuple of str
        Lines that stand out.
    scaled : bool
        Whether standardising lets a row move others, which docs/privacy.md says no ε counts.
    """

    name: str
    task: str
    file: str
    client: str
    header: str | None
    ordinary: Callable[[random.Random], str]
    special: tuple[str, ...]
    scaled: bool = False


def _patient(rng: random.Random) -> str:
    """Return one of UCI's rows that never was."""
    cells = (
        rng.randint(35, 70), rng.randint(0, 1), rng.randint(1, 4), rng.randint(100, 170),
        rng.randint(160, 330), rng.randint(0, 1), rng.randint(0, 2), rng.randint(100, 190),
        rng.randint(0, 1), rng.choice((0.0, 0.6, 1.4, 2.6)), rng.randint(1, 3),
        rng.randint(0, 3), rng.choice((3, 6, 7)), rng.randint(0, 4),
    )  # fmt: skip
    return ",".join(map(str, cells))


def _person(rng: random.Random) -> str:
    return (
        f"{rng.gauss(0, 1):.3f},{rng.gauss(5, 2):.2f},{rng.choice('pqr')},"
        f"{rng.choice(('yes', 'no'))}"
    )


HEART = Table(
    "healthcare", "task=healthcare task.scaling=none", "processed.cleveland.data",
    "cleveland", None, _patient,
    (
        "77,1,4,200,564,1,2,71,1,6.2,3,3,7,4",
        "29,0,1,94,126,0,0,202,0,0.0,1,0,3,0",
        "60,1,4,?,?,?,?,?,?,?,?,?,?,1",
        "60,1,4,140,0,0,0,150,0,1.0,2,0,3,0",
        "9999,1,4,9999,99999,1,2,9999,1,99,3,3,7,4",
    ),
)  # fmt: skip
_DECLARES = "categories" in declared("task", "tabular")
"""Whether experiments declare columns and categories; in older checkouts silos tell theirs."""
_DECLARED = (
    "task.scaling=none task.columns=[x,dose,drug] "
    "task.categories.drug=[p,q,r] task.categories.ill=[no,yes]"
)
WARD = Table(
    "tabular",
    "task=tabular task.target=ill task.kind=binary "
    + (_DECLARED if _DECLARES else "task.scaling=local"),
    "ward.csv", "ward", "x,dose,drug,ill", _person,
    ("250.0,-40.0,p,yes", ",,q,no", "0.1,4.9,rare,no", "1e30,5.0,r,yes", "0.0,5.0,p,no"),
    scaled=not _DECLARES,
)  # fmt: skip
CLEAR = "aggregation: {mechanism: any}"
SECURE = "aggregation: {mechanism: secagg, min_cohort: 3}"
OPEN_METRICS = "metrics: {allowed: [any], sums: true, min_rows: 1}"
LIMITS = "limits: {rounds: 30, epochs: 5, steps: 50}"
_ROUNDS = "model.hidden=[4] rounds=20 train.batch_size=8 train.steps=2"
_RECORD = f"{_ROUNDS} privacy=record_dp privacy.sigma=2 privacy.clip=1"
_LOCAL = f"{_ROUNDS} privacy=client_dp privacy.sigma=3 privacy.placement=local"
_NOISY = f"{_ROUNDS} privacy=distributed_dp privacy.sigma=2 privacy.colluders=1"
_SECAGG = "aggregation=secagg aggregation.range=1000"


def rules(table: Table, mechanism: str, *more: str) -> str:
    """Return a policy file."""
    budget = "" if mechanism == "any" else ", max_epsilon: 1000, delta: 1e-5"
    lines = (
        f"tasks: [{table.name}]",
        f"privacy: {{mechanism: {mechanism}{budget}}}",
        *(more or (CLEAR, OPEN_METRICS, LIMITS)),
    )
    return "\n".join(lines) + "\n"


WEAKER = (
    "privacy=none", "privacy=client_dp privacy.sigma=1", "privacy.sigma=1e-9", "privacy.clip=1e9",
    "privacy.delta=0.9", "aggregation=none", "aggregation=secagg aggregation.adversary=semi_honest",
    "aggregation=he aggregation.identities=unverified", "task.test_fraction=0.9", "seed=5",
    "compare=true", "train.batch_size=100000", "privacy.evaluation=exact", "train.steps=51",
    "strategy=scaffold", "personalization=ditto", "compression=topk", "rounds=31", "profile=true",
    "attack=sign_flip", "train.lr=1e38", "train.max_grad_norm=1", "model=logistic",
)  # fmt: skip
"""Other runs that a server may start with the same silo."""


@dataclass(frozen=True)
class World:
    """A policy, a run and a table.

    Attributes
    ----------
    name : str
    table : Table
    policy : str
    asked : str
        The overrides of the run that the policy lets through.
    secure : bool
        Whether it has secure sums.
    protected : bool
        Whether the policy demands noise, or clipping, in what leaves.
    lenient : bool
        Whether the policy lets runs without protection pass, too: then only this run is tried.
    rows : tuple of int
        Sizes of the tables; small ones lie next to bounds such as ``min_rows``.
    """

    name: str
    table: Table
    policy: str
    asked: str
    secure: bool = False
    protected: bool = True
    lenient: bool = False
    rows: tuple[int, ...] = (60, 80)

    @property
    def run(self) -> str:
        """The run's overrides."""
        return f"{self.table.task} {self.asked}"


_EVALUATED = "privacy.evaluation=noised"
_SHAPES = {
    "flat": "",
    "per layer": "privacy.clipping=per_layer",
    "adaptive": "privacy.quantile=0.5",
    "whole batches": "train.batch_size=16 train.steps=1 privacy.physical_batch=3",
    "momentum kept": "train.momentum=0.9 train.keep_optimizer=true",
    "Adam, decay": "train.optimizer=adam train.lr=0.01 train.weight_decay=0.1",
    "topk": "compression=topk",
    "scaffold": "strategy=scaffold",
    "feddyn": "strategy=feddyn",
    "prox": "strategy=fedprox",
    "epsilon": "privacy.sigma=null privacy.epsilon=20",
    "epochs": "train.steps=null train.epochs=2",
    "personal": "personalization=fedper",
    "logistic": "model=logistic",
    "evaluated": _EVALUATED,
    "epsilon, evaluated": f"privacy.sigma=null privacy.epsilon=20 {_EVALUATED}",
}
"""What of DP-SGD takes paths of its own through the code."""


def _worlds() -> list[World]:
    record, secure = rules(HEART, "record_dp"), (SECURE, LIMITS)
    central = rules(HEART, "client_dp").replace("client_dp", "client_dp, placement: central")

    def logistic(shape: str) -> str:
        return _RECORD.replace("model.hidden=[4] ", "") if "logistic" in shape else _RECORD

    return [
        *(
            World(f"record_dp, {name}", HEART, record, f"{logistic(shape)} {shape}".strip())
            for name, shape in _SHAPES.items()
        ),
        World("record_dp, default metrics", HEART, rules(HEART, "record_dp", CLEAR, LIMITS),
              _RECORD, rows=(100, 101)),
        World("record_dp, table", WARD, rules(WARD, "record_dp"), _RECORD),
        World("record_dp, table, evaluated", WARD, rules(WARD, "record_dp"),
              f"{_RECORD} {_EVALUATED}"),
        World("record_dp, any mechanism", HEART, rules(HEART, "any"),
              f"{_RECORD} privacy.evaluation=none", lenient=True),
        World("client_dp, local", HEART, rules(HEART, "client_dp"),
              f"{_LOCAL} train.steps=null"),
        World("client_dp, local, evaluated", HEART, rules(HEART, "client_dp"),
              f"{_LOCAL} {_EVALUATED}"),
        World("client_dp, central", HEART, central, _LOCAL.replace("=local", "=central")),
        World("record_dp, secagg", HEART, rules(HEART, "record_dp", *secure),
              f"{_RECORD} {_SECAGG}", secure=True),
        World("client_dp, secagg", HEART, rules(HEART, "client_dp", *secure),
              f"{_LOCAL} {_SECAGG}", secure=True),
        World("distributed_dp, secagg", HEART, rules(HEART, "distributed_dp", *secure),
              f"{_NOISY} {_SECAGG}", secure=True),
        World("no privacy, secagg", HEART, rules(HEART, "any", *secure),
              f"{_ROUNDS} {_SECAGG}", secure=True, protected=False),
    ]  # fmt: skip


WORLDS = _worlds()


@dataclass(frozen=True)
class Pair:
    """Two tables that differ in one record.

    Attributes
    ----------
    lines : (list of str, list of str)
    kind : str
    records : int
        1 if it was added or removed, 2 if replaced.
    at_end : bool
        Whether it is the last line, or the first.
    """

    lines: tuple[list[str], list[str]]
    kind: str
    records: int
    at_end: bool


def pair_of(table: Table, rng: random.Random, sizes: Sequence[int]) -> Pair:
    """Draw two neighbouring tables."""
    rows = [table.ordinary(rng) for _ in range(rng.choice(list(sizes)))]
    one = rng.choice([*table.special, table.ordinary(rng), rows[3]])
    at_end = rng.random() < 0.7
    other = None if rng.random() < 0.5 else rng.choice([*table.special, table.ordinary(rng)])
    changed = [[one], [] if other is None else [other]]
    if rng.random() < 0.5:
        changed.reverse()
    lines = [[*rows, *more] if at_end else [*more, *rows] for more in changed]
    return Pair(
        (lines[0], lines[1]),
        "added" if other is None else "replaced",
        1 + (other is not None),
        at_end,
    )


@dataclass
class Silo:
    """A node in one folder: a table, a policy and all that it keeps."""

    folder: Path
    world: World
    lines: Sequence[str]
    keys: Mapping[str, Identity] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        table = self.world.table
        text = [*([table.header] if table.header else []), *self.lines]
        (self.folder / table.file).write_text("\n".join(text) + "\n", encoding="utf-8")
        (self.folder / "policy.yaml").write_text(self.world.policy, encoding="utf-8")
        if self.keys:
            self.keys[table.client].write(self.folder / "identity")
            roster = "".join(f"{key.public.hex()} {name}\n" for name, key in self.keys.items())
            (self.folder / "roster").write_text(roster, encoding="utf-8")
        self.kept = self.folder / "kept"
        self.kept.mkdir()

    def forget(self) -> None:
        """Be as new: nothing was ever released, asked or kept, but for the data's secret key."""
        key = self.kept / "ledgers" / "source.key"
        secret = key.read_bytes() if key.exists() else b""
        shutil.rmtree(self.kept, ignore_errors=True)
        self.kept.mkdir()
        if secret:
            # Processes remember it.
            key.parent.mkdir(mode=0o700)
            key.touch(0o600)
            key.write_bytes(secret)

    def context(self, overrides: str, run: int) -> Context:
        """Return the Flower context of a message."""
        config: dict[str, Any] = {
            "data": str(self.folder / self.world.table.file),
            "policy": str(self.folder / "policy.yaml"),
            "state": str(self.kept / "state"),
            "ledger": str(self.kept / "ledgers"),
            "audit": str(self.kept / "audit.jsonl"),
            "split-key": SPLIT_KEY,
        }
        if self.keys:
            config |= {
                "identity": str(self.folder / "identity"),
                "roster": str(self.folder / "roster"),
            }
        return Context(run, NODE, config, RecordDict(), {"overrides": overrides})

    def ask(self, kind: str, content: RecordDict, overrides: str, run: int = RUN) -> RecordDict:
        """Return what leaves for a message."""
        message = stamp(Message(content, dst_node_id=NODE, message_type=kind))
        return app(message, self.context(overrides, run)).content


def digests(overrides: str) -> dict[str, str]:
    """Return what an honest server says of code and settings; nonsense if there are no such."""
    try:
        return {"config": config_digest(compose(split_overrides(overrides))), "code": code_digest()}
    except (FedproofError, ValueError):
        return {"config": "0", "code": "0"}
