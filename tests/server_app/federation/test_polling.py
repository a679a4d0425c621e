import time
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.server.superlink.linkstate.utils import create_message_error_unavailable_res_message

from server_app.compat import adopt_identity, stamp
from server_app.federation import polling
from server_app.federation.polling import PolledGrid
from server_app.federation.roster import read_reply
from task.parcel import is_parcel
from task.wire import WireError


class Slow:
    """Flower's Grid as far as polling goes: each message is answered after its own time."""

    run = "a run"

    def __init__(self, cost=0.0):
        self.cost = cost
        self.questions = 0
        self.due = {}

    def set_run(self, run):
        self.run = run

    def get_node_ids(self):
        return [1, 2]

    def push_messages(self, messages):
        now = time.monotonic()
        delays = enumerate(message.delay for message in messages)
        self.due = {str(i): now + delay for i, delay in delays if delay is not None}
        return [str(i) if str(i) in self.due else None for i in range(len(messages))]

    def pull_messages(self, message_ids):
        self.questions += 1
        started = time.thread_time()
        while time.thread_time() - started < self.cost:
            pass
        come = [i for i in message_ids if self.due[i] < time.monotonic()]
        return [
            SimpleNamespace(metadata=SimpleNamespace(reply_to_message_id=i, src_node_id=7))
            for i in come
        ]


def asks(*delays):
    """Return messages that are answered after so many seconds, None: that cannot be sent."""
    return [SimpleNamespace(delay=delay, content=RecordDict()) for delay in delays]


def numbers(answers):
    return [answer.metadata.reply_to_message_id for answer in answers]


def test_answers_are_noticed_soon_and_in_the_order_they_come():
    started = time.monotonic()
    answers = PolledGrid(Slow()).send_and_receive(asks(0.1, 0.0, 0.05))
    assert numbers(answers) == ["1", "2", "0"]
    assert 0.1 <= time.monotonic() - started < 0.15


def test_what_comes_too_late_is_left_out():
    started = time.monotonic()
    answers = PolledGrid(Slow()).send_and_receive(asks(0.0, 60.0), timeout=0.1)
    assert numbers(answers) == ["0"]
    assert 0.1 <= time.monotonic() - started < 0.5


def test_one_that_waits_for_its_parts_does_not_cost_the_others_theirs():
    """Flower's Grid waits for them as long as it is let, and whoever came meanwhile waits too."""
    grid = Slow()
    pull = grid.pull_messages

    def stuck(message_ids):
        if grid.questions == 0:
            time.sleep(0.3)
            grid.questions += 1
            return []
        return pull(message_ids)

    grid.pull_messages = stuck
    assert numbers(PolledGrid(grid).send_and_receive(asks(60.0, 0.1), timeout=0.2)) == ["1"]


def test_messages_that_could_not_be_sent_are_not_waited_for():
    assert numbers(PolledGrid(Slow()).send_and_receive(asks(None, 0.0))) == ["1"]
    assert PolledGrid(Slow()).send_and_receive(asks(None)) == []


def test_a_node_that_left_is_given_up_at_once_and_named():
    """The SuperLink answers in its place, in its own name."""
    adopt_identity(1)
    asked = [Message(RecordDict(), dst_node_id=node, message_type="train") for node in (5, 6)]
    grid = Slow()

    def push(messages):
        return [stamp(message).metadata.message_id for message in messages]

    def gone(message_ids):
        return [
            create_message_error_unavailable_res_message(m.metadata, "node_unavail")
            for m in asked
            if m.metadata.message_id in message_ids
        ]

    grid.push_messages, grid.pull_messages = push, gone
    answers = PolledGrid(grid).send_and_receive(asked, timeout=60)
    assert [answer.metadata.src_node_id for answer in answers] == [5, 6]
    for answer in answers:
        with pytest.raises(WireError, match="^its node left$"):
            read_reply(answer, {})


def test_dear_questions_are_asked_less_often(monkeypatch):
    monkeypatch.setattr(polling, "LONGEST", 0.1)
    cheap, dear = Slow(), Slow(cost=0.01)
    for grid in (cheap, dear):
        PolledGrid(grid).send_and_receive(asks(60.0), timeout=0.5)
    assert dear.questions <= 6 < 15 < cheap.questions


@pytest.mark.parametrize(
    ("spent", "waited", "pause"),
    [(0.0, 0.0, 0.005), (0.002, 0.0, 0.04), (0.002, 4.0, 0.2), (0.002, 600.0, 2 / 3), (1, 1, 1.0)],
)
def test_pauses_follow_cost_and_how_long_nothing_came(spent, waited, pause):
    assert polling._pause(spent, waited) == pytest.approx(pause)


def test_messages_travel_as_parcels():
    (message,) = asks(0.0)
    message.content = RecordDict({"a": ConfigRecord(), "b": ConfigRecord()})
    PolledGrid(Slow()).send_and_receive([message])
    assert is_parcel(message.content)


def test_the_rest_is_flowers_grid():
    grid = PolledGrid(Slow())
    grid.set_run("another run")
    assert grid.run == "another run" and grid.get_node_ids() == [1, 2]
    assert grid.push_messages(asks(None, 0.0)) == [None, "1"]
    assert numbers(grid.pull_messages(["1"])) == ["1"]
