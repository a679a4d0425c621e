"""Neighbouring-data fuzzing: can a server tell two silos apart whose tables differ in one record?

    python -m tests.adversary.neighbours [--sequences N] [--project DIR] [--seed S] [--world TEXT]

Random and crafted sequences of messages go to two silos (the real ClientApp, with policy, ledger,
audit log, keys and roster of its own), whose data are the same but for one record that was added
or replaced. Under the coupling of `tests.adversary.coupling` all that leaves must be the same to
the byte, each mechanism's sum may move by its sensitivity and no more, and ledgers and what the
audit logs say of what left must agree. ``--project`` runs it on another checkout. The results are
written to ``--results``; the exit status is 1 if something was found.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__" and "--project" in sys.argv:
    # Before anything of this checkout is imported: `tests` alone is, and its folders add up.
    sys.path.insert(0, str(Path(sys.argv[sys.argv.index("--project") + 1]).resolve()))

import numpy as np
import torch
from flwr.app import ArrayRecord, RecordDict

from client_app.node import node_of
from client_app.site import site_of
from conf.compose import compose, split_overrides
from conf.errors import FedproofError
from server_app.compat import adopt_identity
from task.arrays import values_of
from task.audit import AuditLog
from task.identity import Identity
from task.privacy.ledger import Entry, Ledger
from task.source import load_task
from task.wire import Cohort, WireError
from tests.adversary.coupling import COUNT, STATISTICS, SUM, Coupling, Release, coupled
from tests.adversary.messages import LINEAGE, Ask, Server
from tests.adversary.worlds import RUN, WORLDS, Pair, Silo, World, digests, pair_of

if TYPE_CHECKING:
    from tests.adversary.messages import Script

_BLOCK = 25
"""Sequences with one pair of silos: to make them takes longer than to ask them."""
_MEMORY = "/dev/shm"
SHOWN = 160
PAID = (SUM, STATISTICS, COUNT)
"""Releases that are in the ledger as often as they are made."""
_SLACK = 1e-6
_HEAD = "ledger-head"
"""A hash of the ledger's lines, which are compared themselves."""
_OWN = ("time", "source", "session", "settles")
"""Of a ledger's line: when, keyed names of the data, and secret ones of a secure sum."""
_LISTED = 60
Answers = list[tuple[Ask, RecordDict]]


@dataclass(frozen=True)
class Finding:
    """A difference that a server sees, or that ought not to be.

    Attributes
    ----------
    world, pair : str
        Where: policy and run; how the tables differ.
    message : str
        Its kind.
    labels : tuple of str
        What was peculiar about it.
    where : str
        Which part of what left, of a release or of the ledger.
    detail : str
    sequence : int
        Its number, from which it can be made again.
    """

    world: str
    pair: str
    message: str
    labels: tuple[str, ...]
    where: str
    detail: str
    sequence: int

    @property
    def signature(self) -> tuple[str, str, str, str]:
        """What tells one kind of finding from another."""
        what = "; ".join(sorted({label.split()[0] for label in self.labels}))
        return self.message, what, self.where, self.world


@dataclass
class Report:
    """What a campaign did and found."""

    sequences: int = 0
    messages: int = 0
    answered: int = 0
    releases: Counter[str] = field(default_factory=Counter)
    worlds: Counter[str] = field(default_factory=Counter)
    found: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str, str, str], Finding] = field(default_factory=dict)
    hooks: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        """Count a finding; keep the first of its kind."""
        self.found[finding.signature] += 1
        self.first.setdefault(finding.signature, finding)


class Neighbours:
    """Two silos that differ in one record, and the server that plays with them.

    Parameters
    ----------
    folder : Path
        For all that they keep.
    world : World
    pair : Pair
    coupling : Coupling
    keys : mapping of str to Identity
        The roster's identities.
    """

    def __init__(
        self, folder: Path, world: World, pair: Pair, coupling: Coupling, keys: dict[str, Identity]
    ) -> None:
        self.world, self.pair, self.coupling = world, pair, coupling
        keys = keys if world.secure else {}
        self.silos = [
            Silo(folder / side, world, rows, keys)
            for side, rows in zip("ab", pair.lines, strict=True)
        ]
        coupling.records, coupling.aligned_at_end = pair.records, not pair.at_end
        coupling.scaled = world.table.scaled
        coupling.masked_sums = 0.0 if world.protected else np.inf
        self.server = self._server(keys)
        coupling.end()

    def _server(self, keys: dict[str, Identity]) -> Server:
        """Return a server that knows both silos' features, the worst case."""
        run, client = self.world.run, self.world.table.client
        self.coupling.begin("agreeing", replay=False)
        shared = self._agreed()
        features, model = [], {}
        for silo in self.silos:
            # Both draw the same secret key.
            self.coupling.begin("setting up", replay=False)
            learner = node_of(site_of(silo.context(run, RUN))).learner({"shared": shared})
            data = learner.data(client)
            features.append(torch.cat([data.train.x, data.test.x]).double().numpy())
            layout, built = learner.layout, learner.model
            state = ArrayRecord(layout.state_of(built, layout.of(built.values()), 0))
            model = {key: values_of(array).copy() for key, array in state.items()}
        server = Server(self.world, model, (features[0], features[1]), shared, keys)
        self._require_noise(server)
        return server

    def _agreed(self) -> dict[str, Any]:
        """Return what clients agree on: derived from the settings, or told by a silo's rows."""
        run, client = self.world.run, self.world.table.client
        task = load_task(compose(split_overrides(run)))
        if hasattr(task, "derive_shared"):
            return dict(task.derive_shared())
        header = {**digests(run), "shared": {}, "lineage": LINEAGE}
        told = Cohort.unpack(self.silos[0].ask("query", Cohort(header=header).pack(), run)).header
        described = told.get("describes", {}).get(client)
        return dict(task.agree([described])) if described else {}

    def _require_noise(self, server: Server) -> None:
        """Refuse a world in which honest training releases nothing: it would prove nothing."""
        if self.world.secure:
            return
        self.coupling.begin("honest", replay=False)
        ask = server.honest("train")
        answer = self.silos[0].ask(ask.kind, ask.content, ask.overrides)
        if not self.coupling.tape:
            cohort = Cohort.unpack(answer)
            raise AssertionError(f"{self.world.name}: {cohort.errors} {cohort.header}")

    def play(self, number: int, report: Report) -> list[Finding]:
        """Play one sequence with both silos; return what tells them apart."""
        for silo in self.silos:
            silo.forget()
        rng = random.Random(f"{number} {self.world.name}")
        self.coupling.idle(f"{number}")
        self._released: list[Release] = []
        script = self.server.script(rng)
        found = self._played(script, number, report)
        script.close()
        return found or self._books(number)

    def _played(self, script: Script, number: int, report: Report) -> list[Finding]:
        mine, theirs = self.silos
        ask = next(script, None)
        position = 0
        while ask is not None:
            key = f"{number} {position}"
            self.coupling.begin(key, replay=False)
            first = _asked(mine, ask)
            released = list(self.coupling.tape)
            problems = list(self.coupling.problems)
            self.coupling.end()
            self.coupling.begin(key, replay=True)
            second = _asked(theirs, ask)
            self.coupling.end()
            report.messages += 1
            report.answered += isinstance(first, RecordDict) and "refused" not in _header(first)
            report.releases.update(release.kind for release in released)
            self._released += [release for release in released if release.kind in PAID]
            problems += self.coupling.problems
            found = [*_split(problems), *differences(first, second)]
            if (
                isinstance(first, RecordDict)
                and not released
                and self.world.protected
                and _arrays(first)
            ):
                found.append(("arrays", "left although no mechanism ran"))
            if found:
                return [self._finding(ask, where, detail, number) for where, detail in found]
            try:
                ask = script.send(first if isinstance(first, RecordDict) else RecordDict())
            except StopIteration:
                ask = None
            position += 1
        return []

    def _books(self, number: int) -> list[Finding]:
        """Hold ledgers, and what the audit logs say of what left, against each other."""
        ask, found = Ask("afterwards", RecordDict(), ""), []
        if detail := self._unpaid():
            found.append(self._finding(ask, "ledger", detail, number))
        for where, read in (("ledger", _ledgers), ("audit log", _audit)):
            mine, theirs = (read(silo) for silo in self.silos)
            if mine != theirs:
                pairs = zip_longest(mine, theirs, fillvalue="nothing")
                detail = next(f"{one} | {other}" for one, other in pairs if one != other)
                found.append(self._finding(ask, where, detail, number))
        return found

    def _unpaid(self) -> str | None:
        """Return what the first silo released beyond what its ledger says, if anything."""
        spends = [entry.spend for entry in _entries(self.silos[0])]
        paid, released = sum(spend.steps for spend in spends), len(self._released)
        if released > paid:
            return f"{released} releases, {paid} in the ledger"
        least = min((spend.sigma for spend in spends), default=0.0)
        for one in self._released:
            # One client's whole evaluation is bounded by half of what a row moves it.
            if one.kind != STATISTICS and not one.deviation >= one.sensitivity * least * (
                1 - _SLACK
            ):
                return (
                    f"{one.kind}: noise of {one.deviation:.3g}, the least accounted is {least:.3g}"
                )
        return None

    def _finding(self, ask: Ask, where: str, detail: str, number: int) -> Finding:
        return Finding(
            self.world.name, self.pair.kind, ask.kind, ask.labels, where, detail[:SHOWN], number
        )


def _split(problems: Sequence[str]) -> Iterator[tuple[str, str]]:
    for problem in problems:
        where, _, detail = problem.partition(": ")
        yield where, detail


def _asked(silo: Silo, ask: Ask) -> RecordDict | str:
    """Return a silo's answer, or what it raised, which a server sees, too."""
    try:
        return silo.ask(ask.kind, ask.content, ask.overrides, ask.run)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _header(content: RecordDict) -> dict[str, Any]:
    try:
        return dict(Cohort.unpack(content).header)
    except WireError:
        return {}


def _arrays(content: RecordDict) -> bool:
    try:
        cohort = Cohort.unpack(content)
    except WireError:
        return False
    return cohort.total is not None or any(
        isinstance(record, ArrayRecord) and len(record)
        for part in cohort.parts.values()
        for record in part.values()
    )


def differences(first: RecordDict | str, second: RecordDict | str) -> list[tuple[str, str]]:
    """Return what in two answers differs: where, and what is there."""
    if isinstance(first, str) or isinstance(second, str):
        return [] if first == second else [("raised", f"{first!s:.80} | {second!s:.80}")]
    mine, theirs = _flat(first), _flat(second)
    return [
        (key, f"{mine.get(key, 'nothing')!s:.70} | {theirs.get(key, 'nothing')!s:.70}")
        for key in sorted({*mine, *theirs})
        if mine.get(key) != theirs.get(key)
    ]


def _flat(content: RecordDict) -> dict[str, Any]:
    """Return all that an answer holds, by where it is."""
    try:
        cohort = Cohort.unpack(content)
    except WireError:
        return {key: repr(record) for key, record in content.items()}
    flat: dict[str, Any] = {f"header/{k}": json.dumps(v) for k, v in cohort.header.items()}
    flat |= {f"errors/{k}": v for k, v in cohort.errors.items()}
    parts = {f"parts/{c}": part for c, part in cohort.parts.items()}
    if cohort.total is not None:
        parts["total"] = RecordDict({"total": cohort.total})
    for client, part in parts.items():
        flat[client] = "there"
        for name, record in part.items():
            for key, value in record.items():
                told = (
                    (value.dtype, tuple(value.shape), bytes(value.data))
                    if isinstance(record, ArrayRecord)
                    else value
                )
                flat[f"{client}/{name}/{key}"] = repr(told)
    return {key: value for key, value in flat.items() if not key.endswith(f"/{_HEAD}")}


def _entries(silo: Silo) -> list[Entry]:
    """Return what a silo's ledgers say was released."""
    paths = sorted((silo.kept / "ledgers").rglob("*.jsonl"))
    return [entry for path in paths for entry in Ledger(path).entries()]


def _ledgers(silo: Silo) -> list[str]:
    """Return what ledgers say, all of which the head that leaves is a hash of."""
    lines = []
    for entry in _entries(silo):
        facts = {key: value for key, value in entry.facts.items() if key not in _OWN}
        lines.append(f"{entry.unit} {entry.spend} {facts}")
    return lines


def _audit(silo: Silo) -> list[str]:
    """Return what an audit log says was decided, and what left."""
    receipts = AuditLog(silo.kept / "audit.jsonl").receipts()
    left = ({**r.left, "sha256": None} for r in receipts)
    return [
        f"{r.message} {r.decision} {r.round} {facts}"
        for r, facts in zip(receipts, left, strict=True)
    ]


def campaign(
    sequences: int,
    folder: Path,
    *,
    seed: int = 0,
    worlds: Sequence[World] = WORLDS,
    seconds: float = float("inf"),
    block: int = _BLOCK,
) -> Report:
    """Play so many sequences, each world's share; stop early after so many seconds."""
    adopt_identity(RUN)
    torch.set_num_threads(1)
    report, started = Report(), time.monotonic()
    with coupled() as coupling:
        report.hooks = coupling.hooks
        coupling.idle("keys")
        keys = {name: Identity() for name in ("cleveland", "ward", "other", "third")}
        for number in range(0, sequences, block):
            if time.monotonic() - started > seconds:
                break
            world = worlds[number // block % len(worlds)]
            rng = random.Random(f"{seed} {number}")
            pair = pair_of(world.table, rng, world.rows)
            place = folder / "silos"
            silos = {name: keys[name] for name in (world.table.client, "other", "third")}
            try:
                neighbours = Neighbours(place, world, pair, coupling, silos)
            except FedproofError as error:
                # This checkout refuses the run, as those who wrote it say in a sentence.
                report.skipped[world.name] = str(error)
                shutil.rmtree(place, ignore_errors=True)
                continue
            try:
                for sequence in range(number, min(number + block, sequences)):
                    for finding in neighbours.play(seed * 10**9 + sequence, report):
                        report.add(finding)
                    report.sequences += 1
                    report.worlds[world.name] += 1
            finally:
                shutil.rmtree(place, ignore_errors=True)
    return report


def _switched_off(found: Finding) -> bool:
    return "stack" in found.labels and (
        found.where in ("arrays", "releases") or "/arrays/" in found.where
    )


def _tells_by_failing(found: Finding) -> bool:
    crafted = any(label.startswith("model") for label in found.labels)
    # Where one silo's sum is not finite it fails, and the other one does not.
    spoilt = found.where == SUM and "nan" in found.detail
    return crafted and (spoilt or found.where.startswith(("errors/", "releases", "ledger")))


def _held_out(found: Finding) -> bool:
    return found.message.startswith("evaluate") and any(
        part in found.where for part in ("statistics", "metrics")
    )


def _moved(found: Finding) -> bool:
    return found.where == SUM and "moved by" in found.detail and "nan" not in found.detail


def _counted(found: Finding) -> bool:
    return found.where in ("header/train", "header/test") or "num-examples" in found.where


KNOWN: dict[str, Callable[[Finding], bool]] = {
    "(1) a header switches protection off": _switched_off,
    "(3) whether it fails tells of a row": _tells_by_failing,
    "(6) held-out rows by evaluation": _held_out,
    "(6) a row moves others between training and held-out": _moved,
    "row counts": _counted,
}
"""What findings stand for in 6ceebdb, by the issue's numbers."""


def summary(report: Report, seconds: float) -> dict[str, Any]:
    """Return a report as JSON."""
    found = [
        {**asdict(report.first[key]), "times": times} for key, times in report.found.most_common()
    ]
    faults = {
        name: sum(times for key, times in report.found.items() if test(report.first[key]))
        for name, test in KNOWN.items()
    }
    return {
        "sequences": report.sequences,
        "messages": report.messages,
        "answered": report.answered,
        "seconds": round(seconds, 1),
        "worlds": dict(report.worlds),
        "releases": dict(report.releases),
        "hooks": report.hooks,
        "skipped": report.skipped,
        "findings": sum(report.found.values()),
        "kinds": len(found),
        "known": faults,
        "found": found,
    }


def main() -> int:
    """Run a campaign."""
    parser = argparse.ArgumentParser(prog="python -m tests.adversary.neighbours")
    parser.add_argument("--sequences", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--project", help="another checkout of this project")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--world", default="", help="worlds whose name holds this only")
    parser.add_argument(
        "--block", type=int, default=_BLOCK, help="sequences with one pair of silos"
    )
    parser.add_argument("--results", type=Path, help="a JSON file")
    told = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    memory = _MEMORY if Path(_MEMORY).is_dir() else None
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        worlds = [world for world in WORLDS if told.world in world.name]
        report = campaign(
            told.sequences, Path(folder), seed=told.seed, worlds=worlds, block=told.block
        )
    results = summary(report, time.monotonic() - started)
    if told.results:
        told.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for one in results.pop("found")[:_LISTED]:
        what = f"{one['message']} {', '.join(one['labels']) or 'honest'}"
        where = f"{one['where']}: {one['detail']} (sequence {one['sequence']})"
        print(f"{one['times']:6} {one['world']} | {one['pair']} | {what} | {where}")
    print(json.dumps(results, indent=1))
    return int(results["findings"] > 0)


if __name__ == "__main__":
    sys.exit(main())
