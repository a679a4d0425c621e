"""Asynchronous aggregation on nodes that answer as they like: nothing is counted twice or wrong."""

from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.compose import compose
from server_app.asynchronous import AsyncTraining, unused
from server_app.compat import adopt_identity
from server_app.federation import flow, polling
from server_app.federation.flow import Flow
from server_app.federation.grid import ClientGrid
from server_app.privacy.account import Account
from server_app.samplers import sampler_of
from server_app.strategies._moving import acquaint
from task.profiling import Stopwatch
from task.registry import find
from tests.conftest import interrupt
from tests.server_app.scripted import DIGESTS, FAULTS, NAMED, Clock, Scripted, members, moved

REAL = ("strategy=fedbuff", "strategy.clock=real", "federation=flower")
NODES = {"ann": 1, "bob": 2, "cy": 3, "dee": 3, "eve": 4}


class Federation:
    """The server's side of asynchronous training, on scripted nodes."""

    def __init__(self, *overrides, fates=(), order=(), nodes=NODES):
        adopt_identity(1)
        self.settings = compose((*REAL, *overrides))
        self.roster = SimpleNamespace(trainable=sorted(nodes), members=members(nodes))
        self.clock = Clock()
        self.nodes = Scripted(self.roster.members, fates, order, self.clock)
        self.grid = ClientGrid(self.nodes, self.roster, DIGESTS)
        self.live = sampler_of(self.settings)
        self.strategy = find("server_app.strategies", "fedbuff").build(
            self.settings.strategy.options
        )
        module = torch.nn.Linear(3, 1, bias=False)
        acquaint(self.strategy, self.settings, module, self.roster, self.live)
        self.account = Account(self.settings)
        self.flow = Flow(self.grid, self.roster)
        self.arrays = ArrayRecord({"weight": Array(np.zeros((1, 3), np.float32))})
        self.lines = []

    def round(self):
        """Train one round, with a second attempt; return whether there was a flush."""
        number = len(self.lines) + 1
        told = (self.grid, self.roster, Stopwatch(), self.account, self.live)
        with patch.object(flow, "time", self.clock), patch.object(polling, "time", self.clock):
            for attempt in range(2):
                self.live.draw({}, 1.0, number, attempt)
                training = AsyncTraining(self.flow, self.live, 1, *told, sum_suffices=False)
                valid, answered, failed = training.run(self.strategy, number, self.arrays, 600.0)
                if answered:
                    break
            else:
                return False
        self.lines.append(training.line(number, answered, failed, 1))
        self.arrays, _ = self.strategy.aggregate_train(number, valid)
        return True

    def end(self):
        with patch.object(flow, "time", self.clock), patch.object(polling, "time", self.clock):
            return unused(self.flow, self.live, self.grid, self.account)


def expected(lines, rows):
    """Return the models after each flush: x + Σ p (y - x_start) / sqrt(1 + staleness)."""
    x, models = np.zeros(3), []
    for done, line in enumerate(lines):
        taken = line["staleness"]
        total = sum(rows[client].train for client in taken)
        for client, age in taken.items():
            x = x + rows[client].train / total * moved(client, done - age) / np.sqrt(1 + age)
        models.append(x)
    return models


@given(
    st.lists(st.sampled_from(["good", "good", "good", *FAULTS]), max_size=30),
    st.lists(st.integers(0, 5), max_size=40),
    st.integers(1, 3),
    st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_every_answer_counts_once_as_stale_as_it_is(fates, order, buffer, concurrency):
    options = (f"strategy.buffer={buffer}", f"strategy.concurrency={concurrency}")
    run = Federation(*options, fates=fates, order=order)
    for number in range(1, 7):
        if not run.round():
            break
        line, versions = run.lines[-1], set(run.live.working.values())
        assert 1 <= len(line["answered"]) <= buffer
        assert set(line["answered"]) == set(line["staleness"])
        assert line["at_work"] == sorted(run.live.working)
        assert set(map(int, run.strategy.models)) <= versions | {
            held.version for held in run.live.buffer.values()
        }
        assert all(0 <= age < number for age in line["staleness"].values())
    models = expected(run.lines, run.roster.members)
    found = run.arrays["weight"].numpy().reshape(-1)
    assert found == pytest.approx(models[-1] if models else np.zeros(3), abs=1e-5)
    taken = [
        (client, done - age)
        for done, line in enumerate(run.lines)
        for client, age in line["staleness"].items()
    ]
    assert len(set(taken)) == len(taken)
    assert set(taken) <= {
        (client, version) for client, version, fate in run.nodes.log if fate == "good"
    }
    assert run.nodes.busiest <= min(concurrency, 4)
    counted = {held.version for held in run.live.buffer.values()} | set(run.live.working.values())
    assert bool(counted) == bool(run.end())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_answer_is_named_and_changes_nothing(fault):
    options = ("strategy.buffer=3", "strategy.concurrency=3")
    run = Federation(*options, fates=[fault], nodes={"ann": 1, "bob": 2, "cy": 3})
    assert run.round() and run.round()
    (bad, _, _), *_ = run.nodes.log
    assert NAMED[fault] in run.lines[0]["failed"][bad]
    assert set(run.lines[0]["staleness"]) == {"ann", "bob", "cy"} - {bad}
    assert run.lines[1]["staleness"] == {"ann": 0, "bob": 0, "cy": 0}
    assert run.arrays["weight"].numpy().reshape(-1) == pytest.approx(
        expected(run.lines, run.roster.members)[-1], abs=1e-6
    )


def test_a_slow_client_lets_nobody_wait():
    """The one asked first answers last: its update is as stale as the flushes that it missed."""
    run = Federation("strategy.buffer=1", "strategy.concurrency=2", nodes={"ann": 1, "bob": 2},
                     order=[1, 1, 1, 0])  # fmt: skip
    for _ in range(4):
        assert run.round()
    slow = run.nodes.log[0][0]
    (fast,) = {"ann", "bob"} - {slow}
    assert [line["staleness"] for line in run.lines] == [{fast: 0}] * 3 + [{slow: 3}]
    assert [line["at_work"] for line in run.lines] == [[slow]] * 3 + [[fast]]
    assert run.end() == [fast]


def test_a_node_that_left_is_not_waited_for():
    run = Federation("strategy.buffer=1", "strategy.concurrency=4", order=[1])
    assert run.round()
    gone = sorted(run.live.working)[0]
    del run.roster.members[gone]
    run.roster.trainable.remove(gone)
    assert run.round()
    assert run.lines[-1]["failed"] == {gone: "its node left"}
    assert gone not in run.lines[-1]["at_work"]


def test_when_all_fail_there_is_no_flush():
    run = Federation("strategy.buffer=2", "strategy.concurrency=2", fates=["nan"] * 50)
    assert not run.round()
    assert run.arrays["weight"].numpy().any() == np.False_


WHOLE = (*REAL, "model.hidden=[4]", "train.epochs=1", "strategy.buffer=1", "rounds=4")


def test_a_run_goes_on_after_an_interruption(federate, tmp_path):
    """Nobody is at work for the process that is gone; the rounds before the checkpoint stay."""
    directory = tmp_path / "run"
    interrupt(federate, directory, *WHOLE, after=2, nodes=4)
    ran = federate(*WHOLE, f"resume={directory}", nodes=4, directory=directory)
    lines = ran.rounds
    assert [line["round"] for line in lines] == [1, 2, 3, 4]
    # All answer at once, and one answer is taken: the others are as old as the flushes since.
    assert [list(line["staleness"].values()) for line in lines] == [[0], [1], [0], [1]]
    # Who is at work is not asked to evaluate, but at the end.
    assert [line["evaluated"] for line in lines] == [4, 3, 4, 4]
    assert [len(line["at_work"]) for line in lines] == [0, 1, 0, 1]
    assert len(ran.summary["unused"]) == 3


def test_what_left_a_client_is_counted_though_nobody_aggregates_it(federate):
    private = ("privacy=record_dp", "privacy.sigma=1.0", "train.steps=1")
    ran = federate(*WHOLE, *private, "rounds=2", "evaluate_every=2", nodes=4)
    aggregated = {client for line in ran.rounds for client in line["answered"]}
    assert ran.summary["unused"]
    assert aggregated < set(ran.summary["privacy"]["epsilon"])
