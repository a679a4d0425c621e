"""A one-run canary audit of what silos release, through the real ClientApp.

    python -m tests.adversary.canaries [--canaries N] [--results FILE]

Canaries are records (or clients) of which each is in the data with probability one half, on its
own. Whoever sees the release guesses of some of them whether they are. A mechanism that is (ε, δ)
differentially private bounds how many guesses are right (Steinke, Nasr, Jagielski 2023, "Privacy
Auditing with One (1) Training Run", theorem 5.2): from how many are follows a lower bound on ε,
with a confidence of 95 %, which is held against the ε of the silo's own ledger. Several silos that
do not know of each other are one mechanism with the canaries of all.

Honest silos must stay below their ledgers; with a fault planted, the audit must come out above.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas
import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from scipy.stats import binom

from client_app.node import node_of
from client_app.site import site_of
from conf.compose import compose, split_overrides
from server_app.compat import adopt_identity
from task.arrays import array_of, record_of, values_of
from task.identity import Identity
from task.privacy import dpsgd, noise
from task.privacy.accounting import epsilon
from task.privacy.client_dp import ClippedUpdate
from task.privacy.discrete import mechanism as discrete
from task.privacy.discrete.keystream import KeyStream
from task.privacy.discrete.rotation import padded
from task.privacy.discrete.samplers import discrete_gaussian
from task.privacy.ledger import Ledger, standing
from task.secagg import noisy
from task.source import load_task
from task.wire import Cohort
from tests.adversary.messages import LINEAGE, Server
from tests.adversary.worlds import RUN, Silo, Table, World, digests, rules

DELTA = 1e-5
CONFIDENCE = 0.95
_GUESSED = 0.01
"""Share of the canaries that are guessed to be in, the surest ones; of the others nothing is said:
a canary that is held out, or in no batch, is in the data all the same."""
_FEWEST = 32
_SIGMA = 2.0
"""Noise multiplier: enough for an ε that so few guesses can be told to exceed."""
_PER_SILO = 250
_LOUD = 100.0
"""A canary's only number: its gradient is much longer than any clip."""
Faults = Mapping[str, Callable[[], AbstractContextManager[Any]]]


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes
    ----------
    canaries, guesses, correct : int
    found : float
        Lower bound on ε.
    claimed : float
        The ledger's ε.
    seconds : float
    """

    canaries: int
    guesses: int
    correct: int
    found: float
    claimed: float
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the ledger's word holds, as far as this audit can tell."""
        return self.found <= self.claimed


def lower_bound(canaries: int, guesses: int, correct: int, delta: float) -> float:
    """Return the ε below which so many right guesses would have a probability of at most 5 %.

    Parameters
    ----------
    canaries : int
        Of all of which it was drawn whether they are in.
    guesses, correct : int
        Of how many it was guessed, and how often rightly.
    delta : float
    """
    low, high = 0.0, 30.0
    if _chance(canaries, guesses, correct, low, delta) > 1 - CONFIDENCE:
        return 0.0
    for _ in range(50):
        middle = (low + high) / 2
        likely = _chance(canaries, guesses, correct, middle, delta) > 1 - CONFIDENCE
        low, high = (low, middle) if likely else (middle, high)
    return low


def _chance(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Return a bound on the probability of so many right guesses (theorem 5.2)."""
    right = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, right))
    fewer = np.cumsum(binom.pmf(correct - np.arange(1, correct + 1), guesses, right))
    worst = float((fewer / np.arange(1, correct + 1)).max()) if correct else 0.0
    return min(1.0, tail + 2 * canaries * delta * worst)


def judged(
    scores: NDArray[np.float64],
    there: NDArray[np.bool_],
    claimed: float,
    started: float,
    *,
    fewest: int = _FEWEST,
) -> Audit:
    """Guess the surest canaries by their scores, and return what follows."""
    guesses = max(fewest, round(_GUESSED * len(scores)))
    correct = int(there[np.argsort(scores)[-guesses:]].sum())
    found = lower_bound(len(scores), guesses, correct, DELTA)
    seconds = round(time.monotonic() - started, 1)
    return Audit(len(scores), guesses, correct, found, claimed, seconds)


def _columns(count: int) -> list[str]:
    return [f"x{i:03d}" for i in range(count)]


def _world(name: str, count: int, mechanism: str, more: str, *policy: str) -> World:
    """Return a table of numbers, and a run that goes all the way in one step."""
    columns = _columns(count)
    task = (
        "task=tabular task.target=ill task.kind=binary task.scaling=none model=logistic "
        f"task.columns=[{','.join(columns)}] task.categories.ill=[no,yes] task.test_fraction=0.05"
    )
    header = ",".join([*columns, "ill"])
    table = Table("tabular", task, "ward.csv", "ward", header, lambda _: "", ())
    return World(name, table, rules(table, mechanism, *policy), f"rounds=1 {more}")


@dataclass
class Auditor:
    """Asks silos of one world, whose lines are drawn anew for each.

    Parameters
    ----------
    folder : Path
    world : World
    header : mapping
        What a lying server adds to its message.
    """

    folder: Path
    world: World
    header: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.task = load_task(compose(split_overrides(self.world.run)))
        self.shared = self.task.derive_shared()
        self._made = 0
        self.model: dict[str, NDArray[Any]] = {}

    def release(self, lines: list[str]) -> tuple[NDArray[np.float64], float]:
        """Return a fresh silo's update, and its ledger's ε."""
        self._made += 1
        silo = Silo(self.folder / f"{self._made}", self.world, lines)
        try:
            return self.answer(silo)
        finally:
            shutil.rmtree(silo.folder)

    def answer(self, silo: Silo) -> tuple[NDArray[np.float64], float]:
        """Return a silo's update in its first round, and its ledger's ε."""
        run, client = self.world.run, self.world.table.client
        if not self.model:
            learner = node_of(site_of(silo.context(run, RUN))).learner({"shared": self.shared})
            state = learner.model.module.state_dict()
            self.model = {name: np.zeros_like(value.numpy()) for name, value in state.items()}
        arrays = record_of({name: array_of(value) for name, value in self.model.items()})
        part = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1})})
        header = {**digests(run), "shared": self.shared, "lineage": LINEAGE, **self.header}
        content = Cohort({client: part}, header=header).pack()
        told = Cohort.unpack(silo.ask("train", content, run))
        if client not in told.parts:
            raise AssertionError(f"not answered: {told.errors} {told.header}")
        sent = told.parts[client]["arrays"]
        assert isinstance(sent, ArrayRecord)
        update = np.concatenate([values_of(array).ravel() for array in sent.values()])
        return update.astype(np.float64), _ledger_epsilon(silo)

    def features(self, lines: list[str]) -> NDArray[np.float64]:
        """Return what rows look like to the model: one for each line, and a one for the bias."""
        names = self.world.table.header
        assert names is not None
        cells = [line.split(",") for line in lines]
        frame = pandas.DataFrame(cells, columns=pandas.Index(names.split(",")))
        rows = self.task.prepare(frame, frame[:0], self.shared).train.x.double().numpy()
        return np.column_stack([rows, np.ones(len(rows))])


def _ledger_epsilon(silo: Silo) -> float:
    """Return what a silo's ledger says that all its releases cost."""
    paths = (silo.kept / "ledgers").rglob("*.jsonl")
    entries = [entry for path in paths for entry in standing(Ledger(path).entries())]
    return epsilon([entry.spend for entry in entries], DELTA)


def _batch(count: int) -> int:
    """Return a batch of nearly all training rows, however few canaries are in or counted."""
    rows = count + count / 2
    return int(0.95 * rows - 3 * math.sqrt(count / 4 + 0.05 * rows + 100))


def _canary(index: int, count: int) -> str:
    cells = ["0"] * count
    cells[index] = f"{_LOUD:g}"
    return ",".join([*cells, "yes"])


def audit_records(
    folder: Path, canaries: int, header: Mapping[str, Any], seed: int, *, reference: bool = False
) -> Audit:
    """Audit DP-SGD at record level: each canary has a column of its own.

    With a `reference`, the release of another silo is taken off, which takes off noise that both
    have in common.
    """
    count = min(_PER_SILO, canaries)
    # About half the canaries are in; batches hold (nearly) all of them.
    mechanism = (
        f"privacy=record_dp privacy.sigma={_SIGMA:g} privacy.clip=1 train.steps=1 train.lr={count} "
        f"train.batch_size={_batch(count)}"
    )
    auditor = Auditor(folder, _world("records", count, "record_dp", mechanism), header)
    rng, started = np.random.default_rng(seed), time.monotonic()
    loud = [_canary(index, count) for index in range(count)]
    # No two alike: rows that are would be held out together.
    quiet = [",".join([f"{i * 1e-6:.6f}", *["0"] * (count - 1), "no"]) for i in range(count)]
    more = [",".join(["0", f"{i * 1e-6:.6f}", *["0"] * (count - 2), "no"]) for i in range(count)]
    directions = auditor.features(loud)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    base = auditor.release([*quiet, *more])[0] if reference else 0.0
    scores, there, claimed = [], [], 0.0
    for _ in range(-(-canaries // count)):
        drawn = rng.random(count) < 0.5
        lines = [line for line, present in zip(loud, drawn, strict=True) if present]
        update, cost = auditor.release([*lines, *quiet])
        scores.append(directions @ (update - base))
        there.append(drawn)
        claimed = max(claimed, cost)
    found = np.concatenate(scores), np.concatenate(there)
    return judged(*found, claimed, started, fewest=60)


def audit_clients(
    folder: Path, canaries: int, header: Mapping[str, Any], seed: int, *, reference: bool = False
) -> Audit:
    """Audit noise that clients add to their whole update: each client is a canary, or no one.

    Who is none sends an update of (nearly) zero.
    """
    mechanism = (
        f"privacy=client_dp privacy.placement=local privacy.sigma={_SIGMA:g} privacy.clip=1 "
        "train.steps=1 train.lr=0.2 train.batch_size=16"
    )
    auditor = Auditor(folder, _world("clients", 2, "client_dp", mechanism), header)
    rng, started = np.random.default_rng(seed), time.monotonic()
    lines = {bit: [f"{100 * bit},{i * 1e-6:.6f},yes" for i in range(8)] for bit in (True, False)}
    silos = {
        bit: Silo(folder / f"client {bit}", auditor.world, lines[bit]) for bit in (True, False)
    }
    direction = auditor.features(lines[True])[0]
    direction /= np.linalg.norm(direction)
    there = rng.random(canaries) < 0.5
    base = auditor.answer(silos[False])[0] if reference else 0.0
    scores, claimed = np.empty(canaries), 0.0
    for number, bit in enumerate(there):
        # Another client: it has released nothing yet.
        silos[bool(bit)].forget()
        update, cost = auditor.answer(silos[bool(bit)])
        scores[number] = direction @ (update - base)
        claimed = max(claimed, cost)
    return judged(scores, there, claimed, started)


class _Lying(Server):
    """A server that adds something to every header."""

    more: Mapping[str, Any] = {}

    def header(self, overrides: str, **more: Any) -> dict[str, Any]:
        return super().header(overrides, **more, **self.more)


def audit_shares(
    folder: Path, canaries: int, header: Mapping[str, Any], seed: int, *, reference: bool = False
) -> Audit:
    """Audit the noise that clients share under a secure sum: each sum has one honest client.

    With a `reference`, noise that follows from a known key is taken off.

    The others collude: they add zeros, and the ledger counts no noise of theirs. With a roster, a
    client would take no part beside so many colluders.
    """
    mechanism = (
        f"privacy=distributed_dp privacy.sigma={_SIGMA * math.sqrt(3):.6f} privacy.colluders=2 "
        "privacy.clip=1 train.steps=1 train.lr=0.2 train.batch_size=16 aggregation=secagg "
        "aggregation.adversary=semi_honest"
    )
    policy = ("aggregation: {mechanism: secagg, min_cohort: 3, adversary: any}",)
    world = _world("shares", 2, "distributed_dp", mechanism, *policy)
    auditor = Auditor(folder, world, {})
    rng, started = np.random.default_rng(seed), time.monotonic()
    keys = {name: Identity() for name in ("ward", "other", "third")}
    lines = {bit: [f"{100 * bit},{i * 1e-6:.6f},yes" for i in range(8)] for bit in (True, False)}
    silos = {bit: Silo(folder / f"client {bit}", world, lines[bit]) for bit in lines}
    direction = auditor.features(lines[True])[0]
    direction /= np.linalg.norm(direction)
    learner = node_of(site_of(silos[True].context(world.run, RUN))).learner(
        {"shared": auditor.shared}
    )
    state = learner.model.module.state_dict()
    model = {name: np.zeros_like(value.numpy()) for name, value in state.items()}
    server = _Lying(world, model, (np.zeros((1, 1)),) * 2, auditor.shared, keys)

    server.more = header

    def opened(bit: bool) -> tuple[NDArray[np.float64], float]:
        silo = silos[bit]
        silo.forget()
        script = server.honest_sum(1)
        with suppress(StopIteration):
            ask = next(script)
            while True:
                ask = script.send(silo.ask(ask.kind, ask.content, ask.overrides, ask.run))
        group = server.opened
        if group is None:
            raise AssertionError("the sum was not opened")
        words = group.server.total()
        if reference:
            design = group._codec.mechanism
            size = padded(design.dimension)
            words[:size] -= known_integers(size, design.variance).astype(words.dtype)
        update, _ = group._codec.decode(words, len(group.clients))
        return np.asarray(update, np.float64), _ledger_epsilon(silo)

    there = rng.random(canaries) < 0.5
    scores, claimed = np.empty(canaries), 0.0
    for number, bit in enumerate(there):
        update, cost = opened(bool(bit))
        scores[number] = direction @ update
        claimed = max(claimed, cost)
    return judged(scores, there, claimed, started)


def known_integers(size: int, variance: float, *_: Any) -> Any:
    """Return integers whose key everybody knows."""
    return discrete_gaussian(size, variance, KeyStream(b"\5" * 32))


def _written(values: Any, out: Any) -> Any:
    out[:] = values
    return out


@contextmanager
def less_noise(times: float = 0.5) -> Iterator[None]:
    """Plant a fault: less noise than the ledger says."""
    noised = noise.SecureNoise.noised

    def fewer(self: Any, values: Any, deviation: float, **more: Any) -> Any:
        return noised(self, values, deviation * times, **more)

    def fewer_integers(size: int, variance: float, *more: Any) -> Any:
        return discrete_gaussian(size, variance * times**2, *more)

    with (
        patch.object(noise.SecureNoise, "noised", fewer),
        patch.object(discrete, "discrete_gaussian", fewer_integers),
    ):
        yield


@contextmanager
def no_clipping() -> Iterator[None]:
    """Plant a fault: gradients and updates are as long as they are."""

    def factors(self: Any, norms: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(norms[:, :1])

    def clipped(self: Any, update: torch.Tensor) -> Any:
        return update, True

    def encode(update: torch.Tensor, told: Any, seed: bytes) -> Any:
        return discrete.encode(update, replace(told, clip=1000 * told.clip), seed)

    with (
        patch.object(noisy, "encode", encode),
        patch.object(dpsgd._Clipping, "factors", factors),
        patch.object(ClippedUpdate, "clipped", clipped),
    ):
        yield


@contextmanager
def seeded_noise() -> Iterator[None]:
    """Plant a fault: the noise follows from a seed that is no secret."""

    def known(self: Any, values: Any, deviation: float, out: Any = None) -> Any:
        found = values + np.random.default_rng(5).normal(0.0, deviation, len(values))
        return found if out is None else _written(found, out)

    with (
        patch.object(noise.SecureNoise, "noised", known),
        patch.object(discrete, "discrete_gaussian", known_integers),
    ):
        yield


@contextmanager
def switch(field: str = "stack") -> Iterator[None]:
    """Plant a fault: a header's field switches the noise off."""
    noised, unpack = noise.SecureNoise.noised, Cohort.unpack
    off = False

    def read(content: RecordDict) -> Cohort:
        nonlocal off
        cohort = unpack(content)
        off = field in cohort.header
        return cohort

    def noise_or_none(self: Any, values: Any, deviation: float, out: Any = None) -> Any:
        if not off:
            return noised(self, values, deviation, **({} if out is None else {"out": out}))
        return values if out is None else _written(values, out)

    def integers_or_none(size: int, variance: float, *more: Any) -> Any:
        return np.zeros(size, np.int64) if off else discrete_gaussian(size, variance, *more)

    with (
        patch.object(discrete, "discrete_gaussian", integers_or_none),
        patch.object(noise.SecureNoise, "noised", noise_or_none),
        patch.object(Cohort, "unpack", staticmethod(read)),
    ):
        yield


FAULTS: Faults = {
    "none": nullcontext,
    "noise halved": less_noise,
    "a tenth of the noise": lambda: less_noise(0.1),
    "no clipping": no_clipping,
    "seeded noise": seeded_noise,
    "a header switches protection off": switch,
}
"""What may be planted. Half the noise takes some 100,000 canaries to be told from all of it."""
AUDITS: Mapping[str, Callable[..., Audit]] = {
    "record_dp": audit_records,
    "client_dp, local": audit_clients,
    "distributed_dp": audit_shares,
}
"""By mechanism."""


def run(
    mechanism: str,
    fault: str,
    canaries: int,
    seed: int = 0,
    header: Mapping[str, Any] | None = None,
) -> Audit:
    """Run one audit in memory.

    `header` is what the server lies; unless it is given, that is nothing, or what the planted
    switch looks at.
    """
    adopt_identity(RUN)
    torch.set_num_threads(1)
    if header is None:
        header = {"stack": 2} if "header" in fault else {}
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder, FAULTS[fault]():
        reference = fault == "seeded noise"
        return AUDITS[mechanism](Path(folder), canaries, header, seed, reference=reference)


def main() -> int:
    """Audit every mechanism, honest and with each fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.adversary.canaries")
    parser.add_argument("--canaries", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--results", type=Path, help="a JSON file")
    told = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    wrong, results = 0, []
    for mechanism in AUDITS:
        for fault in FAULTS:
            audit = run(mechanism, fault, told.canaries)
            right = audit.passed == (fault == "none")
            wrong += not right
            results.append({"mechanism": mechanism, "fault": fault, **asdict(audit)})
            print(
                f"{mechanism}, fault: {fault}: ε ≥ {audit.found:.2f} ({audit.correct} of "
                f"{audit.guesses} guesses right, {audit.canaries} canaries), the ledger says "
                f"{audit.claimed:.2f}: {'as it should be' if right else 'WRONG'} "
                f"({audit.seconds} s)",
                flush=True,
            )
    if told.results:
        told.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
