"""A Grid that asks for answers as often as that is cheap, for Flower's Grids only poll."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping

from flwr.app import Message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from conf.flower import hasten, within
from server_app.federation.exchange import ExchangeGrid
from task.parcel import wrap

SHARE, AT_FIRST = 0.003, 0.05
"""Shares of a core that asking may take in this process: after a while, and at first."""
WAITED = 0.05
"""Of the time since there was something, the pause before the next question."""
SHORTEST, LONGEST = 0.005, 1.0
"""Bounds on the seconds between two questions."""


class PolledGrid(ExchangeGrid):
    """Sends through Flower's Grid, and learns of answers sooner than it would by itself.

    Flower asks every 0.1 s in a simulation and every 3 s in a deployment. A question takes 0.03 ms
    of the processor in the one with two nodes, 0.5 ms with a hundred, and 1.6 ms in the other: so
    the pause after it follows from what it took, up to 0.01 s, 0.2 s and 0.5 s, and from how long
    nothing has come: at first it is a twentieth of that.

    Parameters
    ----------
    grid : Grid
        Flower's, which offers ``push_messages`` and ``pull_messages``.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        hasten(type(grid).__module__)

    def set_run(self, run: Run) -> None:
        """Set the run of Flower's Grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run of Flower's Grid."""
        return self._grid.run

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the connected nodes."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages as parcels, and do not wait for answers; see `arrivals`."""
        messages = list(messages)
        for message in messages:
            message.content = wrap(message.content)
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the answers that are there."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send messages as parcels; return the answers that come within `timeout` seconds.

        For a node that left, or whose heartbeats have stopped, the SuperLink answers with an error
        as soon as it knows.
        """
        messages = list(messages)
        numbers = self.push_messages(messages)
        # A message that could not be pushed has no id, and no answer.
        asked = {n: message for n, message in zip(numbers, messages, strict=True) if n}
        waiting = set(asked)
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        answers: list[Message] = []
        while waiting and (arrived := arrivals(self, waiting, deadline)):
            answers += [_attributed(answer, asked) for answer in arrived]
            waiting -= {answer.metadata.reply_to_message_id for answer in arrived}
            if waiting:
                time.sleep(SHORTEST)
        return answers


def _attributed(answer: Message, asked: Mapping[str, Message]) -> Message:
    """Return an answer as that of its node: what the SuperLink says in its place is its own."""
    if answer.metadata.src_node_id != SUPERLINK_NODE_ID or not answer.has_error():
        return answer
    return Message(answer.error, reply_to=asked[answer.metadata.reply_to_message_id])


def arrivals(grid: Grid, waiting: Collection[str], deadline: float) -> list[Message]:
    """Return the answers to these messages as soon as there are any, or none at the deadline.

    Parameters
    ----------
    grid : Grid
        That they were pushed to.
    waiting : collection of str
        Their ids.
    deadline : float
        On the clock of `time.monotonic`; once it is over, only what is there is returned.
    """
    started = time.monotonic()
    while True:
        left = max(0.0, deadline - time.monotonic())
        before = time.thread_time()
        # One that waits for its last parts must not cost the others theirs: after the deadline
        # what is there is taken once more.
        with within(left):
            arrived = list(grid.pull_messages(waiting))
        spent = time.thread_time() - before
        if arrived or not left:
            return arrived
        time.sleep(min(_pause(spent, time.monotonic() - started), left))


def _pause(spent: float, waited: float) -> float:
    """Return the pause after a question that took `spent` seconds of the processor."""
    wanted = max(spent / AT_FIRST, WAITED * waited)
    return min(max(min(wanted, spent / SHARE), SHORTEST), LONGEST)
