"""What leaves a silo: metrics as its policy says, nothing that is not in its audit log first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, RecordDict

from task.refusals import Refusal
from tests.client_app.silo import CLIENT, OPEN, SEEDED, Silo, nothing_left


@pytest.fixture
def silo(tmp_path: Path) -> Silo:
    return Silo(tmp_path, extra=SEEDED)


def test_metrics_leave_as_the_policy_says(tmp_path):
    metrics = "metrics: {allowed: [accuracy], sums: true, min_rows: 100}"
    silo = Silo(tmp_path / "a", OPEN.replace(OPEN.splitlines()[4], metrics), SEEDED)
    (part,) = silo.ask("evaluate", parts={CLIENT: silo.part()}).parts.values()
    assert set(part["metrics"]) == {"num-examples", "accuracy"}
    (part,) = silo.ask("train", parts={CLIENT: silo.part()}).parts.values()
    assert set(part["metrics"]) == {"num-examples", "steps"}
    for rule, change in (("min_rows", "sums: true, min_rows: 105"), ("sums", "min_rows: 1")):
        policy = OPEN.replace("sums: true, min_rows: 1", change)
        silo = Silo(tmp_path / rule, policy, SEEDED)
        nothing_left(silo.ask("evaluate", parts={CLIENT: silo.part()}), silo)
        assert f"metrics.{rule}" in silo.last.reason


def test_figures_of_training_alone_leave_as_the_policy_says(tmp_path):
    def ask(change: str, rounds: int = 2):
        silo = Silo(tmp_path / f"{rounds} {change}", OPEN.replace("allowed: [any], sums", change))
        model, told = silo.model("compare=true"), ConfigRecord({"rounds": rounds})
        part = RecordDict({"start": model, "federated": model, "config": told})
        return silo, silo.ask("evaluate.alone", "compare=true", parts={CLIENT: part})

    _, answer = ask("allowed: [accuracy], sums")
    part = answer.parts[CLIENT]
    for name in ("federated", "local"):
        assert set(part[name]) == {"num-examples", "accuracy"}
    assert len(part["facts"]["curve"]) == 2
    assert part["facts"]["curve"][-1] == part["local"]["accuracy"]
    _, answer = ask("allowed: [loss], sums")
    assert answer.parts[CLIENT]["facts"]["curve"] == []
    for rule, change, rounds in (
        ("metrics.sums", "allowed: [any], min_rows: 1, sums: false} #", 2),
        ("limits.rounds", "allowed: [any], sums", 10**9),
    ):
        silo, answer = ask(change, rounds)
        nothing_left(answer, silo)
        assert rule in silo.last.reason


def test_what_cannot_be_logged_does_not_leave(silo, monkeypatch):
    silo.ask("query")
    write = os.write
    monkeypatch.setattr("task.hash_chain.os.write", lambda file, line: write(file, line[:5]))
    answer = silo.ask("train", parts={CLIENT: silo.part()})
    assert answer.header == {"refused": Refusal.records}
    assert not answer.parts
    monkeypatch.undo()
    assert [r.message for r in silo.audit.receipts()] == ["query"]


def test_an_edited_log_stops_the_silo(silo):
    silo.ask("query")
    silo.ask("query")
    text = silo.audit.path.read_text().replace("answered", "refused!")
    silo.audit.path.write_text(text)
    assert "refused" in silo.ask("query").header


def test_an_unforeseen_error_stays_at_home(silo, monkeypatch, caplog):
    def fail(*_: object) -> None:
        raise KeyError("patient 17")

    monkeypatch.setattr("task.source.DataSource.size", fail)
    answer = silo.ask("query")
    nothing_left(answer, silo)
    assert answer.header["refused"] == Refusal.failed
    assert "patient 17" in caplog.text and "patient 17" not in silo.audit.path.read_text()


def test_a_changed_data_file_is_noticed(silo):
    assert silo.ask("query").header["train"] == [199]
    lines = silo.data.read_text().splitlines(keepends=True)
    silo.data.write_text("".join(lines[:100]))
    assert sum(silo.ask("query").header[k][0] for k in ("train", "test")) == 100
