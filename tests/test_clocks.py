"""A clock that jumps, at the server or at silos, changes no model, no ε, no ledger and no log."""

import itertools
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from benchmarks.data import hospitals
from client_app import gate
from task.audit import AuditLog
from task.privacy.accounting import epsilon
from task.privacy.ledger import Ledger
from task.privacy.row_counts import released_counts

NOON = datetime(2026, 6, 1, 12)
HOUR = 3600.0
JUMPS = (1.03 * HOUR, -1.03 * HOUR, 400 * 24 * HOUR, -90.0, 0.0)
SHORT = ("rounds=3", "model.hidden=[8]", "train.epochs=1")
POLICY = """
tasks: [healthcare]
privacy: {mechanism: any}
aggregation: {mechanism: any}
metrics: {allowed: [any], sums: true, min_rows: 1}
quiet_hours: ["22:00-06:00"]
"""


class Clock:
    """The clock on the wall, of everybody: it stands at noon unless it is off."""

    def __init__(self):
        self.off = 0.0

    def time(self):
        return NOON.timestamp() + self.off

    def now(self):
        return NOON + timedelta(seconds=self.off)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "time", clock.time)
    monkeypatch.setattr(time, "time_ns", lambda: int(clock.time() * 1e9))
    monkeypatch.setattr(gate, "datetime", clock)
    return clock


def jumping(clock):
    """Return what lets the clock jump whenever an answer is on its way."""
    jumps = itertools.cycle(JUMPS)

    def tamper(reply):
        clock.off = next(jumps)
        return reply

    return tamper


def silos(folder):
    (folder / "policy.yaml").write_text(POLICY)
    return [
        {
            "data": str(path), "policy": str(folder / "policy.yaml"),
            "audit": str(folder / f"{path.stem}.jsonl"), "ledger": str(folder / path.stem),
            "state": str(folder / "state"),
        }
        for path in hospitals.main(folder / "data")
    ]  # fmt: skip


def test_a_simulation(clock, federate):
    steady, jumped = federate(*SHORT), federate(*SHORT, tamper=jumping(clock))
    assert jumped.model == steady.model
    assert all(0 <= line["seconds"] < 100 for line in jumped.rounds)


def test_what_is_spent(clock, federate, tmp_path):
    private = (
        "rounds=2",
        "model=logistic",
        "privacy=record_dp",
        "privacy.sigma=2.0",
        "task.scaling=local",
    )
    for name, tamper in (("steady", None), ("jumped", jumping(clock))):
        (tmp_path / name).mkdir()
        nodes = silos(tmp_path / name)[:2]
        clock.off = 0.0
        ran = federate(*private, nodes=nodes, tamper=tamper)
        spent = []
        for node in nodes:
            (ledger,) = Path(node["ledger"]).glob("*.jsonl")
            counts, *rounds = Ledger(ledger).entries()
            assert released_counts([counts]) and [e.facts["round"] for e in rounds] == [1, 2]
            spent.append(epsilon([entry.spend for entry in rounds], 1e-5))
            times = [receipt.time for receipt in AuditLog(Path(node["audit"])).receipts()]
            assert (times == sorted(times)) is (tamper is None)
        assert ran.summary["privacy"]["epsilon_most"] == pytest.approx(max(spent), abs=1e-3)


def test_quiet_hours_are_those_of_the_clock(clock, federate, tmp_path):
    """While the last of four is asked in the second round, it is eleven at night."""

    def tamper(reply):
        asked = reply.metadata.message_type, reply.metadata.src_node_id
        trained.append(asked)
        clock.off = 11 * HOUR if asked == ("train", 102) and trained.count(asked) == 2 else 0.0
        return reply

    trained = []
    ran = federate(*SHORT, nodes=silos(tmp_path), tamper=tamper)
    assert [set(line["failed"]) for line in ran.rounds] == [set(), {"va"}, set()]
    assert "quiet_hours" in ran.rounds[1]["failed"]["va"]
