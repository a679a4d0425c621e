"""How a cohort is dealt to workers, joined again, and survives their deaths."""

import os
import signal

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from conf.compose import compose
from server_app.compat import adopt_identity, stamp
from server_app.engines import local, pool
from server_app.engines.local import SHARES, Joined, LocalGrid, deal, run_local
from server_app.engines.pool import DIED, _error
from server_app.evidence import files
from server_app.evidence.events import watching
from task.wire import UNSENT, Cohort
from tests.flower import ROOT
from tests.server_app.scripted import Clock

ROWS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 999), min_size=1)


@given(ROWS, st.integers(1, 4), st.integers(1, len(SHARES)))
def test_pieces_hold_every_client_once_and_are_even(rows, workers, each):
    cohort = Cohort({client: RecordDict() for client in rows}, header={"rows": rows})
    pieces = deal(cohort, workers, each)
    clients = [client for piece in pieces for client in piece.parts]
    assert sorted(clients) == sorted(rows)
    if workers == 1:
        assert pieces == [cohort]
        return
    shares = [share for share in SHARES[:each] for _ in range(workers)][: len(rows)]
    assert len(pieces) == len(shares)
    loads = [sum(rows[client] + 1 for client in piece.parts) for piece in pieces]
    assert loads == sorted(loads, reverse=True)
    # As LPT: none is larger than its part of the whole by more than one client.
    assert loads[0] <= SHARES[0] * sum(loads) / sum(shares) + max(rows.values()) + 1


def test_what_pieces_did_not_send_is_joined():
    adopt_identity(1)
    asked = Message(RecordDict(), 1, "train")
    joined = Joined()
    for unsent in ({"va": 7}, {"hungary": 9}, {}):
        piece = Cohort(dict.fromkeys(unsent, RecordDict()), header={UNSENT: unsent, "code": "x"})
        joined.take(piece, Message(piece.pack(), reply_to=stamp(asked)))
    assert joined.cohort().header == {UNSENT: {"va": 7, "hungary": 9}, "code": "x"}


def test_a_fast_exchange_is_cut_into_fewer_pieces(monkeypatch):
    workers = Workers()
    monkeypatch.setattr(local, "time", workers.clock)
    grid = LocalGrid(workers, Context(1, 1, {}, RecordDict(), {}))
    adopt_identity(1)
    clients = [f"c{i}" for i in range(40)]
    cohort = Cohort({c: RecordDict() for c in clients}, header={"rows": dict.fromkeys(clients, 9)})
    for expected in (2 * len(SHARES), 2, 2):
        workers.asked.clear()
        grid.send_and_receive([Message(cohort.pack(), 1, "train")], timeout=60)
        assert len(workers.asked) == expected
    workers.delay = 0.2
    counts = []
    for _ in range(3):
        workers.asked.clear()
        grid.send_and_receive([Message(cohort.pack(), 1, "train")], timeout=60)
        counts.append(len(workers.asked))
    assert counts[0] == 2 and counts[2] > 2


class Workers:
    """Two workers in this process, one of which dies whenever it meets the client `deadly`."""

    size = 2

    def __init__(self, deadly=()):
        self.deadly = set(deadly)
        self.asked = []
        self.clock, self.delay = Clock(), 0.0

    def ask(self, messages, timeout):
        for index, message in enumerate(messages):
            self.clock.sleep(self.delay)
            cohort = Cohort.unpack(message.content)
            self.asked.append(sorted(cohort.parts))
            if self.deadly & set(cohort.parts):
                yield index, _error(message, DIED, "its worker process died")
                continue
            parts = {c: RecordDict({"metrics": MetricRecord({"n": 1})}) for c in cohort.parts}
            total = ArrayRecord({"total": Array(np.full(3, float(len(parts))))})
            yield index, Message(Cohort(parts, total=total).pack(), reply_to=message)


def exchange(workers, clients):
    adopt_identity(1)
    grid = LocalGrid(workers, Context(1, 1, {}, RecordDict(), {}))
    cohort = Cohort({client: RecordDict() for client in clients})
    (answer,) = grid.send_and_receive([Message(cohort.pack(), 1, "train")], timeout=60)
    return Cohort.unpack(answer.content)


def test_sums_of_pieces_are_added_up():
    answer = exchange(Workers(), [f"c{i}" for i in range(20)])
    assert len(answer.parts) == 20 and not answer.errors
    assert answer.total["total"].numpy().tolist() == [20.0] * 3


def test_a_client_that_kills_its_worker_fails_alone():
    workers = Workers(deadly=["c3"])
    answer = exchange(workers, [f"c{i}" for i in range(20)])
    assert answer.errors == {"c3": "its worker process died"}
    assert len(answer.parts) == 19
    assert answer.total["total"].numpy().tolist() == [19.0] * 3
    assert ["c3"] in workers.asked


@pytest.fixture
def train(tmp_path):
    """Return a function that trains with workers and returns the model and the rounds' lines."""

    def run(name, *overrides):
        told = [*overrides, f"run_dir={tmp_path / name}"]
        with watching(lambda _: None):
            run_local(compose(tuple(told)), told, str(ROOT))
        lines = files.read_lines(tmp_path / name / files.METRICS)
        return (tmp_path / name / files.MODEL).read_bytes(), lines

    return run


def harm(monkeypatch, number, calls):
    """Send a signal to the worker that gets work at the given calls, counted from 1.

    The first is the roster's question, its answer makes the second; then workers train.
    """
    give, made = pool.Pool._give, []

    def give_and_harm(self, slot, waiting, busy):
        give(self, slot, waiting, busy)
        made.append(slot)
        if len(made) in calls:
            os.kill(self._workers[slot].process.pid, number)

    monkeypatch.setattr(pool.Pool, "_give", give_and_harm)


SHORT = ("rounds=2", "model.hidden=[8]")


@pytest.mark.parametrize("strategy", ["fedavg", "fedmedian", "scaffold"])
def test_kill_minus_nine_in_mid_round_changes_nothing(strategy, train, monkeypatch):
    told = (*SHORT, f"strategy={strategy}")
    expected, _ = train("one", *told, "federation.workers=1")
    harm(monkeypatch, signal.SIGKILL, {1, 4, 5})
    got, lines = train("killed", *told, "federation.workers=2")
    assert got == expected
    assert not any(line["failed"] for line in lines)


def test_a_client_that_hangs_costs_its_round_only(train, monkeypatch):
    harm(monkeypatch, signal.SIGSTOP, {4})
    _, lines = train("hung", *SHORT, "federation.workers=2", "federation.timeout=15")
    assert set(lines[0]["failed"].values()) == {"no answer in time"}
    assert 1 <= len(lines[0]["answered"]) <= 3
    assert not lines[1]["failed"] and len(lines[1]["answered"]) == 4


def test_any_number_of_workers_trains_the_same_model_bit_for_bit(train):
    stacked = ("task=synthetic", "task.clients=40", "federation.fraction=1", "rounds=2")
    models = [train(f"w{n}", *stacked, f"federation.workers={n}") for n in (1, 2, 4)]
    assert len({model for model, _ in models}) == 1
    assert len(models[0][1][0]["answered"]) == 40


def test_convolutions_are_bit_for_bit_the_same_in_any_number_of_workers(train):
    """Whose products are numpy's, with threads of its own."""
    told = (
        "task=synthetic", "model=conv_dropout", "task.shape=[3,32,32]", "task.clients=3",
        "task.rows=20", "federation.fraction=1", "rounds=1",
    )  # fmt: skip
    models = [train(f"w{n}", *told, f"federation.workers={n}")[0] for n in (1, 2)]
    assert models[0] == models[1]


def test_a_cohort_of_one_sends_its_model():
    (piece,) = deal(Cohort({"a": RecordDict()}), 2, 4)
    assert piece.header["sum_from"] == 2
    assert deal(Cohort({"a": RecordDict(), "b": RecordDict()}), 2, 4)[0].header["sum_from"] == 1
