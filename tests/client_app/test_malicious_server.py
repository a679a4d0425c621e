"""A server that asks for more than it may gets nothing, and the silo can show that it asked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client_app.node import node_of
from client_app.site import site_of
from conf.errors import FedproofError
from task.audit import ANSWERED, REFUSED
from task.parcel import PARCEL, wrap
from task.wire import Cohort
from tests.client_app.silo import CLIENT, KINDS, OPEN, SEEDED, Silo, nothing_left


@pytest.fixture
def silo(tmp_path: Path) -> Silo:
    return Silo(tmp_path, extra=SEEDED)


def with_policy(folder: Path, more: str, **extra: object) -> Silo:
    return Silo(folder, OPEN + more, extra)


def test_an_honest_server_is_answered(silo):
    assert silo.ask("query").header["clients"] == [CLIENT]
    trained = silo.ask("train", parts={CLIENT: silo.part()})
    assert set(trained.parts[CLIENT]) == {"arrays", "metrics"}
    receipt = silo.last
    assert (receipt.decision, receipt.round, receipt.run) == (ANSWERED, 1, "1")
    assert receipt.rows == {CLIENT: 199}
    assert receipt.left["bytes"] > 6000 and receipt.left["norm"] > 1
    silo.ask("evaluate", parts={CLIENT: silo.part()})
    assert silo.last.rows == {CLIENT: 104}


def test_parcels_are_answered_in_parcels_or_refused_like_anything_else(silo):
    content = Cohort({CLIENT: silo.part()}, header=silo.header("")).pack()
    trained = silo.ask("train", content=wrap(content))
    assert trained.parts == silo.ask("train", content=content).parts
    first, second = silo.audit.receipts()
    assert first.left == second.left and first.rows == second.rows
    parcel = wrap(content)
    parcel[PARCEL]["values"] = b"short"
    nothing_left(silo.ask("train", content=parcel), silo)
    assert silo.last.decision == REFUSED and "parcel" in silo.last.reason


INJECTIONS = (
    "train.lr=${oc.env:SILO_TOKEN}",
    "task.metric=${oc.env:SILO_TOKEN}",
    "train.optimizer=${oc.decode:${oc.env:SILO_TOKEN}}",
    "task=../../../../SECRET",
    "+task@other=../../../../SECRET",
    "experiment=../SECRET",
    "hydra.searchpath=[file://SECRET]",
    "+hydra.searchpath=[file://SECRET]",
    "model._target_=os.system",
    "+x=1",
    "'",
    "a" * 200_000,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("override", INJECTIONS, ids=lambda text: text[:40])
def test_overrides_reach_for_nothing(silo, kind, override, monkeypatch, tmp_path):
    monkeypatch.setenv("SILO_TOKEN", "hunter2")
    (tmp_path / "secret.yaml").write_text("patient_17: rich\n", encoding="utf-8")
    relative = os.path.relpath(tmp_path / "secret", Path(__file__).parents[2] / "conf" / "x")
    answer = silo.ask(kind, override.replace("SECRET", relative), {CLIENT: silo.part()})
    nothing_left(answer, silo)
    assert silo.last.decision == REFUSED
    for told in (json.dumps(answer.header), silo.audit.path.read_text()):
        assert "hunter2" not in told and "patient_17" not in told


def test_paths_of_the_run_lead_nowhere_on_a_silos_disk(silo, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    overrides = (
        f"task.path=/etc/passwd run_dir={elsewhere} train.momentum=0.9 train.keep_optimizer=true"
    )
    answer = silo.ask("train", overrides, {CLIENT: silo.part()})
    assert answer.parts[CLIENT]["metrics"]["num-examples"] == 199
    assert not any(elsewhere.iterdir())


@pytest.mark.parametrize("kind", ["train.raw", "evaluate.rows", "query.dump", "query.ledger"])
def test_there_are_no_other_messages(silo, kind):
    answer = silo.ask(kind, parts={CLIENT: silo.part()})
    nothing_left(answer, silo)
    assert silo.last.decision == REFUSED and kind in silo.last.reason


@pytest.mark.parametrize("kind", KINDS[:3])
def test_fields_that_ask_for_rows_are_not_looked_at(silo, kind):
    wish = ConfigRecord({"return": "rows", "columns": ["age"], "sql": "select *", "path": "/etc"})
    part = silo.part()
    part["wish"] = wish
    answer = silo.ask(kind, parts={CLIENT: part}, dump=True, rows={CLIENT: -1}, describe="all")
    rows = silo.data.read_text().splitlines()
    told = json.dumps(answer.header) + "".join(str(p) for p in answer.parts.values())
    assert not any(row in told for row in rows)
    sent = [a for p in answer.parts.values() for a in p.values() if isinstance(a, ArrayRecord)]
    assert sum(array.numpy().size for record in sent for array in record.values()) in (0, 1601)


@pytest.mark.parametrize(
    ("more", "overrides", "rule"),
    [
        ("", "task=synthetic", "tasks"),
        ("limits: {rounds: 15}", "rounds=16", "limits.rounds"),
        ("limits: {epochs: 2}", "train.epochs=3", "limits.epochs"),
        ("limits: {steps: 10}", "train.steps=11", "limits.steps"),
        ("limits: {update_bytes: 5000}", "", "limits.update_bytes"),
        ("columns: [age, sex, num]", "", "columns"),
        ("code: [abc]", "", "code"),
        ("submitters: [alice]", "", "submitters"),
        ("quiet_hours: ['00:00-24:00']", "", "quiet_hours"),
        ("dry_run: true", "", "dry_run"),
    ],
)  # fmt: skip
def test_what_the_policy_file_does_not_allow(tmp_path, more, overrides, rule):
    silo = with_policy(tmp_path, more)
    answer = silo.ask("train", overrides, {CLIENT: silo.part()})
    nothing_left(answer, silo)
    assert answer.header["refused"] == f"this silo's policy ({rule}) does not allow it."
    assert silo.last.reason.startswith(f"policy, {rule}: ")
    # What was wanted is refused before any row is looked at; only the size is not known before.
    assert bool(silo.last.rows) == (rule == "limits.update_bytes")


def test_a_submitter_that_is_allowed(tmp_path):
    silo = with_policy(tmp_path, "submitters: [alice]", **{"run-submitter": "alice"})
    assert silo.ask("train", parts={CLIENT: silo.part()}).parts
    assert silo.last.sender["run-submitter"] == "alice"


PRIVATE = "tasks: [healthcare]\naggregation: {mechanism: any}\nmetrics: {sums: true}\n"


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ("", "demands privacy=record_dp"),
        ("privacy=client_dp privacy.sigma=1", "demands privacy=record_dp"),
        ("privacy=record_dp privacy.sigma=0.2", "has reached its budget"),
        ("privacy=record_dp privacy.sigma=1.5 privacy.delta=1e-3 task.scaling=local", None),
    ],
)
def test_privacy_is_not_lowered(tmp_path, overrides, reason):
    silo = Silo(tmp_path, PRIVATE + "privacy: {max_epsilon: 4}\n", SEEDED)
    answers = [silo.ask("train", overrides, {CLIENT: silo.part("", n)}) for n in range(1, 9)]
    if reason is None:
        # Within the budget at the silo's own δ it is answered; then never again.
        left = [bool(a.parts) for a in answers]
        assert left == sorted(left, reverse=True) and not left[-1]
        spent = [r.left["epsilon"] for r in silo.audit.receipts() if "epsilon" in r.left]
        assert spent == sorted(spent) and spent[-1] <= 4
        reason = "has reached its budget"
    nothing_left(answers[-1], silo)
    assert reason in silo.last.reason + "".join(silo.last.errors.values())


def test_rounds_beyond_the_limit_are_not_trained(tmp_path):
    silo = with_policy(tmp_path, "limits: {rounds: 3}")
    told = "rounds=3"
    assert not silo.ask("train", told, {CLIENT: silo.part(number=4)}).parts
    # The same round over and over, as a server would that averages noise away.
    answers = [silo.ask("train", told, {CLIENT: silo.part(number=1)}) for _ in range(5)]
    assert [bool(answer.parts) for answer in answers] == [True] * 3 + [False] * 2
    assert "3 rounds of this run were asked for" in silo.last.reason


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("digest", ["config", "code"])
def test_other_code_or_settings(silo, kind, digest):
    answer = silo.ask(kind, parts={CLIENT: silo.part()}, **{digest: "f" * 64})
    nothing_left(answer, silo)
    assert f"other {digest}" in silo.last.reason


def bad_arrays() -> dict[str, ArrayRecord | MetricRecord]:
    huge = b"\x93NUMPY\x01\x00v\x00" + (
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
    )
    pickled = np.array([{"a": 1}], dtype=object)
    one = {"float32": np.zeros((40, 32), np.float32)}
    return {
        "bomb": ArrayRecord({"0.weight": Array("float64", (10**12,), "numpy.ndarray", huge)}),
        "lie": ArrayRecord({"0.weight": Array("float64", (2,), "numpy.ndarray", huge)}),
        "garbage": ArrayRecord({"0.weight": Array("float32", (2, 2), "numpy.ndarray", b"x" * 9)}),
        "negative": ArrayRecord({"0.weight": Array("float32", (-4,), "numpy.ndarray", b"x" * 99)}),
        "object": ArrayRecord({"0.weight": Array("O", (1,), "numpy.ndarray", pickled.tobytes())}),
        "pickle": ArrayRecord({"0.weight": Array("float32", (1,), "pickle", b"cos\nsystem\n.")}),
        "torch": ArrayRecord({"0.weight": Array("float32", (1,), "torch.tensor", b"PK\x03\x04")}),
        "shape": ArrayRecord({"0.weight": Array(one["float32"])}),
        "empty": ArrayRecord(),
        "metrics": MetricRecord({"a": 1.0}),
    }


@pytest.mark.parametrize("kind", ["train", "evaluate"])
@pytest.mark.parametrize("name", bad_arrays())
def test_malformed_arrays(silo, kind, name):
    answer = silo.ask(kind, parts={CLIENT: silo.part(arrays=bad_arrays()[name])})
    nothing_left(answer, silo)


def raw(**texts: str) -> RecordDict:
    told = {"layout": "{}", "errors": "{}", "header": "{}"} | texts
    return RecordDict({"cohort": ConfigRecord(told)})


MALFORMED = {
    "empty": RecordDict(),
    "list": raw(layout="[]"),
    "names": raw(layout='{"cleveland": {"arrays": "r9"}}'),
    "numbers": raw(layout='{"cleveland": 7}'),
    "header": raw(header="[]"),
    "deep": raw(header="[" * 100_000),
    "huge number": raw(header="9" * 10_000),
    "type": RecordDict({"cohort": MetricRecord({"layout": 1})}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_cohorts(silo, kind, name):
    nothing_left(silo.ask(kind, content=MALFORMED[name]), silo)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lineage", 7), ("lineage", []), ("lineage", [[]]), ("lineage", [["../../x", 0]]),
        ("shared", [1]), ("stack", "many"), ("sum_unit", float("nan")), ("sum_from", "x"),
    ],
)  # fmt: skip
def test_headers_that_make_no_sense(silo, field, value):
    settings = "train.momentum=0.9 train.keep_optimizer=true"
    answer = silo.ask("train", settings, {CLIENT: silo.part()}, **{field: value})
    if field in ("shared", "stack", "sum_unit", "sum_from"):
        # A silo does not look at what a simulation's server says for speed.
        assert answer.parts[CLIENT]["metrics"]["num-examples"] == 199
    else:
        nothing_left(answer, silo)
    assert not list(silo.folder.parent.rglob("x"))


@pytest.mark.parametrize("number", ["two", [1], -1, 2**80, 1.5])
def test_rounds_that_are_none(silo, number):
    try:
        part = silo.part(number=number)
    except (ValueError, TypeError):
        return
    silo.ask("train", parts={CLIENT: part})
    assert silo.last.round is None or silo.last.round == int(float(str(number)))


def test_a_cohort_of_one_is_no_sum(tmp_path):
    policy = OPEN.replace("aggregation: {mechanism: any}", "aggregation: {min_cohort: 3}")
    silo = Silo(tmp_path, policy)
    part = silo.part()
    for overrides, reason in (
        ("", "demands aggregation=secagg"),
        ("aggregation=secagg aggregation.min_cohort=2", "demands min-cohort=3 at least"),
        ("aggregation=secagg aggregation.threshold=0.5", ""),
    ):
        for kind in ("train", "evaluate"):
            answer = silo.ask(kind, overrides, {CLIENT: part})
            nothing_left(answer, silo)
            assert reason in silo.last.reason


def test_a_run_chooses_neither_which_rows_are_held_out_nor_how_many(tmp_path):
    """The attack: evaluations under two seeds or fractions cover rows that are trained on."""
    silo = Silo(tmp_path)
    private = "privacy=record_dp privacy.sigma=2 task.scaling=local"
    sources = [
        node_of(site_of(silo.context(f"{private} seed={seed}"))).source for seed in (0, 1, 2)
    ]
    first, *others = (source.split(CLIENT)[1] for source in sources)
    assert 30 < len(first) < 130
    assert all(np.array_equal(held_out, first) for held_out in others)
    other = node_of(site_of(silo.context(f"{private} task.test_fraction=0.5"))).source
    with pytest.raises(FedproofError, match="would be evaluated"):
        other.split(CLIENT)
