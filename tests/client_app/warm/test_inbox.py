"""A SuperNode's own store after its loop gave up a message, or who answered one died."""

from types import SimpleNamespace

import pytest
from flwr.app import Message, RecordDict
from flwr.common.constant import Status
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode.nodestate import NodeStateFactory

from client_app.warm.inbox import Inbox
from server_app.compat import adopt_identity

RUN = 7


@pytest.fixture
def state():
    adopt_identity(RUN)
    return NodeStateFactory(ObjectStoreFactory()).state()


def inbox_after(state, outcome):
    """Return an inbox whose loop took in something, or nothing."""
    inbox = Inbox()
    loop = SimpleNamespace(_pull_and_store_message=lambda *, state: outcome)
    inbox.watch(loop)
    assert loop._pull_and_store_message(state=state) == outcome
    return inbox


def stored(state, message):
    message.metadata.__dict__["_message_id"] = message.object_id
    state.store_message(message)
    return message


def statuses(state):
    return [task.status.status for task in state.get_tasks()]


def test_a_message_that_arrived_is_told_of_and_stays(state):
    state.create_task(TaskType.CLIENT_APP, RUN)
    assert inbox_after(state, RUN).arrived.is_set()
    assert statuses(state) == [Status.PENDING]


def test_a_message_that_never_was_complete_is_given_up(state):
    state.create_task(TaskType.CLIENT_APP, RUN)
    assert not inbox_after(state, None).arrived.is_set()
    assert statuses(state) == [Status.FINISHED]


def test_who_died_before_the_answer_is_answered_for(state):
    task = state.create_task(TaskType.CLIENT_APP, RUN)
    asked = stored(state, Message(RecordDict(), 1, "train"))
    state.claim_task(task)
    inbox_after(state, RUN).crashed(RUN)
    (reply,) = state.get_messages_legacy(is_reply=True)
    assert reply.has_error() and reply.metadata.reply_to_message_id == asked.metadata.message_id
    assert statuses(state) == [Status.FINISHED]


def test_half_an_answer_is_given_up(state):
    """Whoever sends it on would wait for the rest for good."""
    asked = stored(state, Message(RecordDict(), 1, "train"))
    reply = stored(state, Message(RecordDict(), reply_to=asked))
    state.object_store.preregister(RUN, get_object_tree(reply))
    assert state.object_store.get(reply.object_id) == b""
    inbox_after(state, RUN).crashed(RUN)
    assert state.object_store.get(reply.object_id) is None
