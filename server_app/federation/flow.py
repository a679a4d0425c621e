"""Work that clients were given, one by one, and its answers in the order in which they come."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import Message, RecordDict

from server_app.federation.grid import ClientGrid, failure
from server_app.federation.roster import Roster


@dataclass(frozen=True)
class Given:
    """What a client works on.

    Attributes
    ----------
    node : int
        Where the client was when it was asked.
    asked : Message
        Without its content.
    deadline : float
        When its answer is late, on the clock of `time.monotonic`.
    """

    node: int
    asked: Message
    deadline: float


class Flow:
    """Messages on their way, by the ids under which their answers come.

    An answer is handed out once. What is not waited for any more, because it is late or its node
    left, never is: its id is forgotten.

    Parameters
    ----------
    grid : ClientGrid
        To the clients.
    roster : Roster
        Who is there.
    """

    def __init__(self, grid: ClientGrid, roster: Roster) -> None:
        self._grid = grid
        self._roster = roster
        self._given: dict[str, Given] = {}
        self._unsent: list[Message] = []

    @property
    def busy(self) -> set[int]:
        """The nodes that have work."""
        return {given.node for given in self._given.values()}

    @property
    def waiting(self) -> bool:
        """Whether there is anything to `take`."""
        return bool(self._given or self._unsent)

    def give(self, messages: Iterable[Message], timeout: float) -> None:
        """Send clients their messages; they have `timeout` seconds."""
        for message in messages:
            member = self._roster.members[self._grid.receiver(message)]
            number = self._grid.send(message)
            # The model in it may be large, and is not needed any more.
            message.content = RecordDict()
            if number:
                deadline = time.monotonic() + timeout
                self._given[number] = Given(member.node, message, deadline)
            else:
                self._unsent.append(failure(message, "its message could not be sent"))

    def take(self, *, wait: bool = True) -> list[Message]:
        """Return answers that nobody was given before, and why others will not come.

        Parameters
        ----------
        wait : bool
            Whether to wait until there is one.
        """
        taken, self._unsent = self._unsent, []
        taken += self._gone()
        if self._given:
            soon = wait and not taken
            deadline = min(given.deadline for given in self._given.values()) if soon else 0.0
            asked = {number: given.asked for number, given in self._given.items()}
            for number, answer in self._grid.receive(asked, deadline).items():
                del self._given[number]
                taken.append(answer)
        return taken + self._late()

    def _gone(self) -> list[Message]:
        members = self._roster.members

        def left(given: Given) -> bool:
            member = members.get(self._grid.receiver(given.asked))
            return member is None or member.node != given.node

        return self._forget({n for n, given in self._given.items() if left(given)}, "its node left")

    def _late(self) -> list[Message]:
        now = time.monotonic()
        late = {number for number, given in self._given.items() if given.deadline <= now}
        return self._forget(late, "no answer in time")

    def _forget(self, numbers: Iterable[str], reason: str) -> list[Message]:
        return [failure(self._given.pop(number).asked, reason) for number in numbers]
