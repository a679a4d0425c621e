"""How a cohort is dealt to workers, joined again, and survives their deaths."""

import os
import signal

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from server_app.compat import adopt_identity
from server_app.engines.local import PIECES_PER_WORKER, LocalGrid, deal
from server_app.engines.pool import DIED, _error
from task.wire import Cohort

ROWS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(1, 999), min_size=1)


@given(ROWS, st.integers(1, 4))
def test_pieces_hold_every_client_once_and_are_even(rows, workers):
    cohort = Cohort({client: RecordDict() for client in rows}, header={"rows": rows})
    pieces = deal(cohort, workers)
    clients = [client for piece in pieces for client in piece.parts]
    assert sorted(clients) == sorted(rows)
    if workers == 1:
        assert pieces == [cohort]
        return
    assert len(pieces) == min(len(rows), workers * PIECES_PER_WORKER)
    loads = [sum(rows[client] + 1 for client in piece.parts) for piece in pieces]
    assert loads == sorted(loads, reverse=True)
    # LPT: no piece is heavier than the lightest by more than its own smallest client.
    assert loads[0] - min(loads) <= max(rows.values()) + 1


class Workers:
    """Two workers in this process, one of which dies whenever it meets the client `deadly`."""

    size = 2

    def __init__(self, deadly=()):
        self.deadly = set(deadly)
        self.asked = []

    def ask(self, messages, timeout):
        for index, message in enumerate(messages):
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


@pytest.mark.parametrize("overrides", ["", "strategy=fedmedian"])
def test_kill_minus_nine_in_mid_round_changes_nothing(overrides, tmp_path, monkeypatch):
    from conf.compose import compose
    from server_app.engines import pool
    from server_app.engines.local import run_local
    from server_app.evidence import files
    from server_app.evidence.events import watching
    from tests.flower import ROOT

    def run(name, workers):
        told = [*overrides.split(), "rounds=2", "model.hidden=[8]"]
        told += [f"federation.workers={workers}", f"run_dir={tmp_path / name}"]
        with watching(lambda _: None):
            run_local(compose(tuple(told)), told, str(ROOT))
        failed = [line["failed"] for line in files.read_lines(tmp_path / name / files.METRICS)]
        return (tmp_path / name / files.MODEL).read_bytes(), failed

    expected = run("one", 1)
    give, calls = pool.Pool._give, []

    def give_and_kill(self, slot, waiting, busy):
        give(self, slot, waiting, busy)
        calls.append(slot)
        # The first is the roster's question, its answer makes the second; then workers train.
        if len(calls) in (1, 4, 5):
            os.kill(self._workers[slot].process.pid, signal.SIGKILL)

    assert run("two", 2) == expected
    monkeypatch.setattr(pool.Pool, "_give", give_and_kill)
    got = run("killed", 2)
    assert got == expected


def test_a_cohort_of_one_sends_its_model():
    (piece,) = deal(Cohort({"a": RecordDict()}), 2)
    assert piece.header["sum_from"] == 2
    assert deal(Cohort({"a": RecordDict(), "b": RecordDict()}), 2)[0].header["sum_from"] == 1
