"""Attacks on what leaves a silo: nobody gets values that the demanded mechanism did not make."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from client_app.exit import Answer, leave
from client_app.release import Clipped, Encrypted, Masked, Noised, Plain, Public, Release
from client_app.request import Kind
from client_app.site import site_of
from task.arrays import array_of, record_of, values_of
from task.client_update.base import ClientUpdate, Update
from task.privacy.client_dp import ClippedUpdate
from task.privacy.dpsgd import Mechanism
from task.privacy.ledger import Ledger
from task.refusals import Refusal, RefusalError
from task.training import Trained
from tests.client_app.silo import CLIENT, Silo

PRIVATE = """
tasks: [healthcare, tabular]
privacy: {mechanism: PRIVACY, placement: any, max_epsilon: 8}
aggregation: {mechanism: any}
metrics: {allowed: [any], sums: true, min_rows: 1}
"""
RECORD = "privacy=record_dp privacy.sigma=200 privacy.clip=1 task.scaling=local rounds=50"
LOCAL = "privacy=client_dp privacy.placement=local privacy.sigma=50 rounds=50 task.scaling=local"
CENTRAL = (
    "privacy=client_dp privacy.placement=central privacy.noise=tree privacy.sigma=50 rounds=50"
)
PLAIN = "task.scaling=local rounds=50"
SENTENCES = {str(refusal) for refusal in Refusal}


def protected(folder: Path, mechanism: str = "record_dp") -> Silo:
    return Silo(folder, PRIVATE.replace("PRIVACY", mechanism))


def spends(silo: Silo) -> int:
    """How many rounds are in the silo's ledgers; the release of its number of rows is none."""
    ledgers = (silo.folder / "ledgers").glob("*.jsonl")
    return sum("round" in entry.facts for path in ledgers for entry in Ledger(path).entries())


def vector(part: RecordDict) -> np.ndarray:
    return np.concatenate([values_of(array).ravel() for array in part["arrays"].values()])


LIES = [
    {"stack": 2},
    {"stack": 2, "stacks": [[CLIENT]]},
    {"stack": "many"},
    {"rows": {CLIENT: 10**6}, "sum_from": 1},
    {"sum_unit": 1.0, "sum_from": 1, "stack": 2},
    {"shared": {"mean": [1e9], "std": [1e-9]}},
    {"lineage": [["another", 40]]},
    {"checkpointed": 40, "clip": 1e9, "purpose": "evaluate", "privacy": "none", "sigma": 0.0},
]
PARTS = [{"proximal-mu": 1e6}, {"clip": 1e9}, {"stack": 2}, {"purpose": "train "}]


def test_no_lie_of_a_message_takes_the_noise_off(tmp_path):
    """Attack: each field that once decided something, and some that never did."""
    plain = Silo(tmp_path / "open")
    start = plain.model(PLAIN)
    bare = vector(plain.ask("train", PLAIN, {CLIENT: plain.part(PLAIN, 1, start)}).parts[CLIENT])
    silo = protected(tmp_path / "silo")
    cases = [*((lie, {}) for lie in LIES), *(({}, part) for part in PARTS)]
    for number, (lie, told) in enumerate(cases, 1):
        part = silo.part(PLAIN, number, start)
        part["config"] = ConfigRecord({"server-round": number, **told})
        answer = silo.ask("train", RECORD, {CLIENT: part}, **lie)
        assert set(answer.parts[CLIENT]) == {"arrays", "metrics", "privacy"}, (lie, told)
        assert answer.total is None and spends(silo) == number
        # σ = 200 clips: 1,600 values of it are far from any model.
        assert np.linalg.norm(vector(answer.parts[CLIENT]) - bare) > 50, (lie, told)


@pytest.mark.parametrize("lie", [{}, {"lineage": [["another", 0]]}, {"stack": 2}])
def test_a_protected_silo_answers_no_round_twice_or_out_of_order(tmp_path, lie):
    silo = protected(tmp_path)
    first = silo.ask("train", RECORD, {CLIENT: silo.part(PLAIN, 5)})
    assert first.parts
    # A process that knows nothing of the first, as after a restart.
    again = Silo(tmp_path, silo.policy)
    for number in (5, 4, 1):
        answer = again.ask("train", RECORD, {CLIENT: again.part(PLAIN, number)}, **lie)
        assert not answer.parts and answer.header["refused"] == Refusal.repeated
    assert spends(silo) == 1
    assert again.ask("train", RECORD, {CLIENT: again.part(PLAIN, 6)}, **lie).parts


def test_marks_that_are_damaged_stop_a_silo(tmp_path):
    silo = protected(tmp_path)
    silo.ask("train", RECORD, {CLIENT: silo.part(PLAIN, 5)})
    (marks,) = (silo.folder / "ledgers" / "marks").rglob("*.json")
    marks.write_text("{}}")
    answer = silo.ask("train", RECORD, {CLIENT: silo.part(PLAIN, 6)})
    assert not answer.parts and answer.header["refused"] == Refusal.records


def crafted(like: ArrayRecord) -> ArrayRecord:
    """A model that overflows, and whose losses are not finite."""
    return record_of({k: array_of(np.full_like(values_of(a), 1e30)) for k, a in like.items()})


@pytest.mark.parametrize(
    ("mechanism", "run"), [("record_dp", RECORD), ("client_dp", LOCAL), ("client_dp", CENTRAL)]
)
def test_a_model_that_overflows_tells_nothing(tmp_path, mechanism, run):
    """Attack: whether an update is finite is a question about rows, asked of each model anew."""
    silo = protected(tmp_path, mechanism)
    model = silo.model(PLAIN)
    for number, arrays in enumerate((model, crafted(model), crafted(model)), 1):
        answer = silo.ask("train", run, {CLIENT: silo.part(PLAIN, number, arrays)})
        assert not answer.errors and spends(silo) == number
        found = answer.parts[CLIENT]
        assert set(found) == {"arrays", "metrics", "privacy"}
        assert {type(value) for value in found["metrics"].values()} == {int}
    if run is CENTRAL:
        assert not vector(found).any()


@pytest.mark.parametrize(("mechanism", "run"), [("record_dp", RECORD), ("client_dp", LOCAL)])
def test_training_that_fails_is_paid_for_and_cannot_be_told_from_noise(
    tmp_path, mechanism, run, monkeypatch
):
    """Attack: a model that makes an exception of some rows."""
    silo, honest = protected(tmp_path, mechanism), ClientUpdate.run

    def fails(self: ClientUpdate, work: object) -> Update:
        if work.data.x.any():  # type: ignore[attr-defined]
            raise IndexError("patient 17 has no such class")
        return honest(self, work)  # type: ignore[arg-type]

    first = silo.ask("train", run, {CLIENT: silo.part(PLAIN, 1)})
    monkeypatch.setattr(ClientUpdate, "run", fails)
    second = silo.ask("train", run, {CLIENT: silo.part(PLAIN, 2)})
    assert spends(silo) == 2 and not second.errors
    one, two = (answer.parts[CLIENT] for answer in (first, second))
    assert set(one) == set(two) and dict(one["metrics"]) == dict(two["metrics"])
    assert [a.shape for a in one["arrays"].values()] == [a.shape for a in two["arrays"].values()]


def test_the_ledger_is_written_before_rows_are_read(tmp_path, monkeypatch):
    silo, seen = protected(tmp_path), []

    def looks(*_: object) -> None:
        seen.append(spends(silo))
        raise ValueError("row 17: 'rich' is no number")

    monkeypatch.setattr("task.source.DataSource.data", looks)
    answer = silo.ask("train", RECORD, {CLIENT: silo.part(PLAIN, 1)})
    assert seen == [1] and answer.errors == {CLIENT: Refusal.failed}
    assert "rich" not in silo.audit.path.read_text()


def test_rounds_that_fail_count(tmp_path, monkeypatch):
    """Attack: questions that end in errors, without end, also of a run without privacy."""
    silo = Silo(tmp_path, PRIVATE.replace("PRIVACY", "any") + "limits: {rounds: 3}")
    arrays = crafted(silo.model())
    for name in ("one", "two", "three"):
        lineage = [[name, 0]]
        answer = silo.ask("train", "rounds=3", {CLIENT: silo.part("", 1, arrays)}, lineage=lineage)
        assert answer.errors == {CLIENT: Refusal.diverged}
    answer = silo.ask("train", "rounds=3", {CLIENT: silo.part()}, lineage=[["four", 0]])
    assert answer.header["refused"] == Refusal.rounds and not answer.parts


TABLE = "task=tabular task.kind=binary model=logistic"


@pytest.mark.parametrize("kind", ["query", "train", "evaluate", "evaluate.alone", "query.secure"])
@pytest.mark.parametrize(
    "run",
    [
        f"{TABLE} task.target=ill",
        f"{TABLE} task.target=ill {RECORD}",
        f"{RECORD} train.batch_size=5000",
        f"{RECORD} privacy.delta=0.9",
        "task.path=/etc/passwd aggregation=secagg",
        "compare=true",
        "model.hidden=[8]",
    ],
)
def test_what_a_silo_says_instead_of_an_answer_is_on_the_list(tmp_path, kind, run, caplog):
    """Attack: columns that are not there, batches larger than the table, models that do not fit."""
    silo = Silo(tmp_path, PRIVATE.replace("PRIVACY", "any"))
    silo.data = silo.data.rename(silo.folder / "secret-name.csv")
    silo.data.write_text("Anna Muster,1961,F32.2\nOtto Muster,1970,C34\n", encoding="utf-8")
    model = silo.model()
    part = RecordDict(
        {
            "arrays": model, "start": model, "federated": model, "unmask": ConfigRecord(),
            "config": ConfigRecord({"server-round": 1, "rounds": 1}),
        }
    )  # fmt: skip
    answer = silo.ask(kind, run, {CLIENT: part, "Anna Muster": part})
    said = [*answer.errors.values()]
    said += [answer.header["refused"]] if "refused" in answer.header else []
    for told in answer.parts.values():
        said += [str(record["refused"]) for record in told.values() if "refused" in record]
    assert said and set(said) <= SENTENCES
    assert "Muster" not in json.dumps([*said, answer.header.get("describes", {})])
    # Who mends it reads more than that.
    assert any(line not in SENTENCES for line in [silo.last.reason, *silo.last.errors.values()])
    assert caplog.text


def made() -> dict[str, Release]:
    """One release of each type, as its mechanism makes it."""
    start, update = torch.zeros(3), torch.ones(3)
    noisy = Mechanism(1.0, 1.0, False, 0.5, 1)
    local, central = (ClippedUpdate(1.0, 0.5, 1.0, place, 1) for place in (True, False))
    trained = Update(update, Trained(0.0, 1, {}, noisy))
    return {
        "plain": Plain.of(update),
        "public": Public.of(RecordDict()),
        "record_dp": Noised.trained(trained, noisy, lambda values: values),
        "client_dp": Noised.locally(update, start, local, torch.ones(3)),
        "clipped": Clipped.of(update, central)[0],
    }


def test_a_release_is_made_by_its_mechanism_only():
    mechanism = Mechanism(1.0, 1.0, False, 0.5, 1)
    for kind in (Plain, Public, Noised, Clipped, Masked, Encrypted):
        with pytest.raises(TypeError, match="by its mechanism only"):
            kind(torch.ones(3), privacy="record_dp")
    other = Mechanism(1.0, 1.0, False, 0.5, 1)
    for by in (None, other):
        with pytest.raises(RefusalError, match="without the run's noise"):
            Noised.trained(Update(torch.ones(3), Trained(0.0, 1, {}, by)), mechanism, lambda v: v)


@pytest.mark.parametrize(
    ("run", "allowed"),
    [
        (PLAIN, {"plain", "record_dp", "client_dp", "clipped"}),
        (RECORD, {"record_dp"}),
        (LOCAL, {"client_dp"}),
        (CENTRAL, {"clipped"}),
        ("aggregation=secagg aggregation.threshold=0.7", set()),
        (f"{RECORD} aggregation=secagg aggregation.threshold=0.7", set()),
    ],
)
def test_what_leaves_is_checked_by_its_type(tmp_path, run, allowed):
    silo = Silo(tmp_path, PRIVATE.replace("PRIVACY", "any"))
    site = site_of(silo.context(run))
    left = set()
    for name, release in made().items():
        try:
            leave(site, Kind.train, Answer(parts={CLIENT: release}))
            left.add(name)
        except RefusalError as error:
            assert error.refusal is Refusal.unprotected
    assert left == allowed


def test_an_update_that_is_not_finite_is_none():
    for spoilt in (torch.tensor([1.0, np.nan]), torch.tensor([np.inf, -np.inf])):
        clipped, unclipped = Clipped.of(spoilt, ClippedUpdate(1.0, 0.5, 1.0, False, 1))
        assert unclipped and clipped.values is not None and not clipped.values.any()
