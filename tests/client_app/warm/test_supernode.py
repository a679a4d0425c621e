"""The warm SuperNode's own parts; that it serves runs is in tests/deployment/test_supernodes.py."""

import signal
import threading
from types import SimpleNamespace

import pytest

from client_app.warm import supernode
from client_app.warm.inbox import Inbox
from client_app.warm.runtime import Assigned
from client_app.warm.worker import Worker
from conf import flower
from conf.errors import FedproofError
from tests.flower import wait_for


@pytest.mark.parametrize("option", ["--isolation=process", "--ssl-certfile", "--isolation"])
def test_options_that_it_sets_itself(option):
    with pytest.raises(FedproofError, match="cannot be given to `fedproof supernode`"):
        supernode.main([option])


def test_another_flower_is_refused(monkeypatch):
    monkeypatch.setattr(flower, "version", lambda _: "1.50.0")
    with pytest.raises(FedproofError, match="use flower-supernode"):
        supernode.main([])


def test_pauses_follow_what_happens(monkeypatch):
    clock, slept = [0.0], []

    def sleep(seconds):
        slept.append(round(seconds, 3))
        clock[0] += seconds

    monkeypatch.setattr(supernode.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(supernode.time, "sleep", sleep)
    pauses = supernode.Pauses()

    def asked(took):
        clock[0] += took
        pauses.sleep(3)

    def answering(took):
        clock[0] += took
        pauses.sleep(0.5)

    asked(0.01)
    assert slept == [0.1]
    asked(0.2)
    assert slept.pop() == 0.8, "a SuperLink that takes long is asked less"
    asked(60.0)
    assert slept.pop() == 3, "but as often as Flower would"
    answering(0.0)
    answering(1.0)
    answering(10.0)
    assert slept[1:] == [0.01, 0.051, 0.1]
    answered = clock[0] - 0.1
    asked(1.0)
    assert slept.pop() == 0.1, "that was the answer's way"
    while clock[0] < answered + 20:
        asked(0.0)
    idle = clock[0] - answered
    asked(0.0)
    assert slept.pop() == round(0.05 * idle, 3) > 1.0, "nothing came for long"


def test_a_process_that_dies_is_replaced(monkeypatch):
    """A token that no SuperNode knows is a message lost, not the worker."""
    worker = Worker("127.0.0.1:1")
    worker.warm_up()
    process = worker._process
    process.kill()
    process.join()
    worker._start(7)
    assert worker._process.is_alive() and worker._process.pid != process.pid
    worker.stop()
    assert worker._process is None


def test_messages_are_taken_as_soon_as_they_are_told_of(monkeypatch):
    inbox, taken, crashed = Inbox(), [], []
    waiting = [Assigned(1, "a"), None, Assigned(2, "b")]
    monkeypatch.setattr(inbox, "crashed", crashed.append)
    assignments = SimpleNamespace(next=lambda: waiting.pop(0))
    worker = SimpleNamespace(answer=lambda _, token: taken.append(token) or token == "a")
    told = (worker, assignments, inbox)
    threading.Thread(target=supernode._serve, args=told, daemon=True).start()
    for left in (2, 1, 0):
        assert len(waiting) == left + 1
        inbox.arrived.set()
        wait_for(lambda left=left: len(waiting) == left, 10)
    wait_for(lambda: crashed, 10)
    assert taken == ["a", "b"] and crashed == [2]


def test_a_supernode_ends_when_it_cannot_answer_any_more(monkeypatch):
    inbox, ended = Inbox(), []
    monkeypatch.setattr(supernode.os, "kill", lambda _, number: ended.append(number))
    broken = SimpleNamespace(next=lambda: 1 / 0)
    inbox.arrived.set()
    supernode._serve_or_end(SimpleNamespace(), broken, inbox)
    assert ended == [signal.SIGTERM]


@pytest.mark.parametrize(
    ("policy", "text", "reason"),
    [
        ("tasks: [tabular]", "Jane Doe,1961-05-02,ill\nJohn Smith,1950-01-31,well\n",
         "looks like data"),
        ("tasks: [tabular]", "name,ill\n" + "".join(f"Jane{'abc' * i} Doe,no\n" for i in range(20)),
         "'name' has another value"),
        ("taks: [tabular]", "age,ill\n1,no\n", "no rule 'taks'"),
    ],
)  # fmt: skip
def test_data_that_tell_of_rows_are_found_before_anybody_asks(tmp_path, policy, text, reason):
    (tmp_path / "policy.yaml").write_text(policy)
    (tmp_path / "a.csv").write_text(text)
    told = f'data="{tmp_path / "a.csv"}" policy="{tmp_path / "policy.yaml"}"'
    with pytest.raises(FedproofError, match=reason):
        supernode.main(["--insecure", "--node-config", told])
