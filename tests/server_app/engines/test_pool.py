"""Worker processes that die, hang or fail are replaced, and their messages answered."""

import os
import signal
import time

import psutil
import pytest
from flwr.app import Context, Message, MessageType, RecordDict

from server_app.compat import adopt_identity, stamp
from server_app.engines.local import LocalGrid, open_grid
from server_app.engines.pool import Pool
from tests.flower import ROOT

CONTEXT = Context(1, 1, {}, RecordDict(), {"overrides": ""})


def question():
    adopt_identity(1)
    return stamp(Message(RecordDict(), dst_node_id=1, message_type=MessageType.QUERY))


@pytest.fixture(scope="module")
def pool():
    with Pool(2, CONTEXT, str(ROOT)) as workers:
        yield workers


def ask(pool, count, timeout=120):
    """Return the answers in the order of their messages."""
    return [
        answer
        for _, answer in sorted(
            pool.ask([question() for _ in range(count)], timeout), key=lambda pair: pair[0]
        )
    ]


def test_every_message_is_answered(pool):
    messages = [question() for _ in range(5)]
    answers = dict(pool.ask(messages, timeout=120))
    ids = [answers[i].metadata.reply_to_message_id for i in range(5)]
    assert ids == [message.metadata.message_id for message in messages]
    assert all(answer.has_content() for answer in answers.values())


def test_a_killed_worker_is_replaced(pool):
    victim = pool._workers[0].process.pid
    answers = []
    for index, answer in pool.ask([question() for _ in range(9)], timeout=120):
        answers.append(answer)
        if index == 0:
            # Both are at work, or about to be.
            os.kill(victim, signal.SIGKILL)
    failed = [answer for answer in answers if answer.has_error()]
    assert len(answers) == 9 and len(failed) <= 1
    assert all(answer.error.reason == "its worker process died" for answer in failed)
    assert victim not in {worker.process.pid for worker in pool._workers}
    assert all(answer.has_content() for answer in ask(pool, 2))


def test_a_hung_worker_is_replaced(pool):
    ask(pool, 2)  # Both are up.
    victim = psutil.Process(pool._workers[0].process.pid)
    victim.suspend()
    started = time.monotonic()
    answers = ask(pool, 40, timeout=10)
    assert time.monotonic() - started < 60
    assert [a.error.reason for a in answers if a.has_error()] == ["no answer in time"]
    assert not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE
    assert all(answer.has_content() for answer in ask(pool, 2))


def test_no_worker_is_left():
    with Pool(2, CONTEXT, str(ROOT)) as workers:
        pids = [worker.process.pid for worker in workers._workers]
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_grid_of_one_worker_needs_no_process(monkeypatch):
    from conf.compose import compose

    adopt_identity(1)
    with open_grid(compose(("federation.workers=1",)), 1, {"overrides": ""}, str(ROOT)) as grid:
        assert isinstance(grid, LocalGrid)
        (answer,) = grid.send_and_receive([question()])
    assert answer.has_content()
    with pytest.raises(NotImplementedError, match="send_and_receive"):
        grid.push_messages([])
