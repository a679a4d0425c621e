"""A lying server asks for evaluations: what leaves a silo of its held-out rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, RecordDict

import client_app.evaluating
from client_app.guard import EVALUATION
from client_app.node import Learner, node_of
from client_app.site import site_of
from task.arrays import array_of, record_of, values_of
from task.base import ClientData, Examples
from task.bounded import BoundedBinary
from task.privacy.accounting import epsilon
from task.privacy.evaluation import Evaluations
from task.privacy.ledger import Entry, Ledger
from task.privacy.noise import SecureNoise
from task.privacy.row_counts import SPEND, released_counts
from tests.client_app.silo import CLIENT, OPEN, Silo

DEMANDS = """
tasks: [healthcare]
privacy: {mechanism: record_dp, max_epsilon: 8.0, delta: 1e-5}
aggregation: {mechanism: any}
metrics: {allowed: [any], sums: true, min_rows: 1}
limits: {rounds: 1000, evaluations: 1000}
"""
"""A policy that lets out all that it can under privacy."""
RUN = "privacy=record_dp privacy.epsilon=6.0 task.scaling=none rounds=3"
NOISED = f"{RUN} privacy.evaluation=noised"
SEEDED = {"held-out": "seed"}
"""Silos that hold out the same rows: of two that do not, nothing could be compared."""
BOUNDED = BoundedBinary()


@pytest.fixture
def silo(tmp_path: Path) -> Silo:
    return Silo(tmp_path, DEMANDS, SEEDED)


def evaluated(
    silo: Silo, overrides: str = NOISED, number: int = 1, arrays: ArrayRecord | None = None
) -> RecordDict | str:
    """The client's answer, or why there is none."""
    part = silo.part("task.scaling=none", number, arrays)
    answer = silo.ask("evaluate", overrides, {CLIENT: part})
    if CLIENT in answer.parts:
        return answer.parts[CLIENT]
    return str(answer.errors.get(CLIENT) or answer.header["refused"])


def ledger(silo: Silo) -> list[Entry]:
    paths = (silo.folder / "ledgers").glob("*.jsonl")
    return [entry for path in paths for entry in Ledger(path).entries()]


def entries(silo: Silo) -> list[Entry]:
    """What was released besides the numbers of rows."""
    return [entry for entry in ledger(silo) if released_counts([entry]) is None]


def vector(part: RecordDict) -> np.ndarray:
    """What left, as noise of one deviation was added to it."""
    statistics, blocks = part["statistics"], BOUNDED.blocks
    assert {k: len(v) for k, v in statistics.items()} == {k: b.length for k, b in blocks.items()}
    return np.concatenate([b.weight * np.array(statistics[k]) for k, b in blocks.items()])


@pytest.mark.parametrize("evaluation", ["", "privacy.evaluation=exact", "privacy.evaluation=none"])
def test_a_silo_that_demands_privacy_gives_no_exact_figures(silo, evaluation):
    told = evaluated(silo, f"{RUN} {evaluation}")
    assert told == "evaluation is not answered under this silo's policy."
    assert not entries(silo)
    # Training is answered all the same.
    trained = silo.ask("train", f"{RUN} {evaluation}", {CLIENT: silo.part("task.scaling=none")})
    assert "arrays" in trained.parts[CLIENT]


def test_a_bound_on_epsilon_demands_it_too(tmp_path):
    silo = Silo(tmp_path, OPEN, {"max-epsilon": 8.0})
    assert "not answered" in evaluated(silo, RUN)


def test_sums_leave_with_noise_and_nothing_else_does(silo):
    part = evaluated(silo)
    assert set(part) == {"metrics", "statistics", "privacy"}
    assert set(part["metrics"]) == {"num-examples"}
    (entry,) = entries(silo)
    assert entry.facts["kind"] == EVALUATION and entry.facts["round"] == 1
    privacy = node_of(site_of(silo.context(NOISED))).guard.privacy
    noise = privacy.evaluation_noise(CLIENT, released_counts(ledger(silo)).train)
    assert entry.spend == noise.spend and part["privacy"]["sigma"] == noise.sigma
    exact = vector(evaluated(silo, number=2)) - vector(part)
    # Twice the same model: what differs is two draws of noise.
    assert np.std(exact) == pytest.approx(np.sqrt(2) * noise.deviation(BOUNDED), rel=0.5)


def test_the_line_is_in_the_ledger_before_rows_are_read(silo, monkeypatch):
    def crash(*arguments: object, **options: object) -> None:
        assert [entry.facts["kind"] for entry in entries(silo)] == [EVALUATION]
        raise RuntimeError("patient 17 is rich")

    monkeypatch.setattr(client_app.evaluating, "bounded_sums", crash)
    assert "patient" not in evaluated(silo)
    assert len(entries(silo)) == 1


def test_a_server_that_asks_a_hundred_times_runs_out(silo):
    answers = [evaluated(silo, number=number) for number in range(1, 101)]
    left = [isinstance(answer, RecordDict) for answer in answers]
    # As many as the run plans, one for each of its rounds.
    assert left == [True] * 3 + [False] * 97
    assert len(entries(silo)) == 3


def test_a_long_run_runs_out_of_budget(silo):
    """What a run plans may be more than the silo lets out: each evaluation is paid for."""
    run = f"{RUN} rounds=40 privacy.epsilon=60.0 privacy.evaluation=noised"
    answers = [evaluated(silo, run, number) for number in range(1, 21)]
    left = [isinstance(answer, RecordDict) for answer in answers]
    count = sum(left)
    assert 1 <= count < 20 and left == [True] * count + [False] * (20 - count)
    spends = [entry.spend for entry in entries(silo)]
    assert len(spends) == count and epsilon([SPEND, *spends], 1e-5) <= 8.0
    assert epsilon([SPEND, *spends, spends[0]], 1e-5) > 8.0


def learner_of(silo: Silo) -> Learner:
    return node_of(site_of(silo.context(NOISED))).learner({})


def without(silo: Silo, whole: ClientData, row: int) -> None:
    """Make a silo the neighbour of one with `whole`: it lacks one held-out row."""
    kept = np.arange(len(whole.test)) != row
    test = Examples(whole.test.x[kept], whole.test.y[kept])
    learner_of(silo).data = lambda client: replace(whole, test=test)


def crafted(silo: Silo, kind: str) -> ArrayRecord:
    """A model by which a lying server asks for one row."""
    like = {k: values_of(a).copy() for k, a in silo.model("task.scaling=none").items()}
    names = list(like)
    if kind == "random":
        chance = np.random.default_rng(3)
        like = {k: chance.normal(0, 3, v.shape).astype(v.dtype) for k, v in like.items()}
    elif kind == "overflow":
        # Where the oldest patient is, infinity less infinity; elsewhere 0.
        like = {k: np.zeros_like(v) for k, v in like.items()}
        like[names[0]][0, 0], like[names[1]][0] = 1e6, -1e6 * 69.5
        like[names[2]][:2, 0], like[names[4]][0, :2] = 1e17, [1e17, -1e17]
    elif kind == "edge":
        # All logits are 0 up to rounding: what decides is in which batch a row is.
        like = {k: v * 1e-20 for k, v in like.items()}
    else:
        like[names[0]][:] = np.nan
    return record_of({k: array_of(v) for k, v in like.items()})


@pytest.mark.parametrize("kind", ["random", "overflow", "edge", "nan"])
def test_a_row_less_moves_what_leaves_by_no_more_than_the_sensitivity(tmp_path, monkeypatch, kind):
    """Whatever model is sent, with the same noise: the attack that read age and diagnosis."""
    monkeypatch.setattr("task.privacy.noise.SecureNoise", lambda: SecureNoise(b"k" * 32))
    silos = [Silo(tmp_path / name, DEMANDS, SEEDED) for name in ("with", "without")]
    data, moved = learner_of(silos[0]).data(CLIENT), []
    whole = vector(evaluated(silos[0], arrays=crafted(silos[0], kind)))
    for number, row in enumerate(range(0, 104, 40), 1):
        without(silos[1], data, row)
        part = evaluated(silos[1], number=number, arrays=crafted(silos[1], kind))
        moved.append(float(np.linalg.norm(vector(part) - whole)))
    # The grid of the noise rounds each of some forty values.
    assert max(moved) <= BOUNDED.sensitivity * (1 + 1e-6)
    assert min(moved) > 0.5


def test_a_row_that_overflows_leaves_nothing_else_than_others(tmp_path):
    """No failure, no other shape, no other ledger: what was a yes or no about single patients."""
    silos = [Silo(tmp_path / name, DEMANDS, SEEDED) for name in ("with", "without")]
    answers = [
        silo.ask("evaluate", NOISED, {CLIENT: silo.part("", 1, crafted(silo, kind))})
        for silo, kind in zip(silos, ("overflow", "random"), strict=True)
    ]
    for answer in answers:
        assert not answer.errors and "refused" not in answer.header
    one, other = (answer.parts[CLIENT] for answer in answers)
    # The ledger's head is a hash under each silo's own key.
    one["privacy"].pop("ledger-head")
    other["privacy"].pop("ledger-head")
    assert one["privacy"] == other["privacy"]
    assert {k: len(v) for k, v in one["statistics"].items()} == {
        k: len(v) for k, v in other["statistics"].items()
    }
    assert np.isfinite(vector(one)).all()


@pytest.mark.parametrize("overrides", [NOISED, RUN])
def test_a_path_that_forgets_the_noise_has_nothing_that_could_leave(silo, monkeypatch, overrides):
    """A mistake in the code that evaluates meets the type at the exit."""
    monkeypatch.setattr(client_app.evaluating, "evaluations_of", lambda node: Evaluations.exact)
    assert "not protected" in evaluated(silo, overrides)


def test_an_open_silo_answers_exactly(tmp_path):
    silo = Silo(tmp_path, extra=SEEDED)
    part = evaluated(silo, "task.scaling=none")
    assert set(part) == {"metrics", "statistics"} and "accuracy" in part["metrics"]
    assert sum(part["statistics"]["positives"] + part["statistics"]["negatives"]) == 104
