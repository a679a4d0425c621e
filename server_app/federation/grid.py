"""A Grid on which clients look like nodes, so that any Flower strategy works on clients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import ArrayRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from server_app.federation.compression import pack_models
from server_app.federation.exchange import ExchangeGrid
from server_app.federation.polling import arrivals
from server_app.federation.reduction import NodeTotal
from server_app.federation.roster import Roster, read_reply
from task.packing import Packing
from task.profiling import Stopwatch
from task.shown import is_plain
from task.wire import UNSENT, Cohort, WireError, records, wire_bytes

CLIENT_FAILED = 2
"""Flower's error code of a ClientApp that raised."""
_MOST_TIMES = 8
"""Of the bytes that a client got, what it can believably have sent, packed in other ways."""
_MOST_STAGES = 32
"""Stages that a node may tell of, and characters of their names."""


class ClientGrid(ExchangeGrid):
    """Presents the clients of a cohort as nodes, and sends one message per physical node.

    Parameters
    ----------
    grid : Grid
        Flower's, to the physical nodes.
    roster : Roster
        Which node serves which client.
    header : mapping
        What every cohort message says: digests, and what the clients agreed on.
    packing : Packing or None
        How models and updates are compressed.

    Attributes
    ----------
    header, packing
        As given.
    cohort : list of str
        The clients that a strategy sees; set before each exchange.
    totals : list of NodeTotal
        What nodes added up in the last exchange; those clients' answers hold no model.
    clock : Stopwatch
        Seconds by stage that nodes reported (``profile=true``), added up.
    bytes_down, bytes_up : int
        Content sent to and received from clients so far, each client counted as if it were a
        node of its own, so that the figures do not depend on how clients share nodes.
    """

    def __init__(
        self,
        grid: Grid,
        roster: Roster,
        header: Mapping[str, Any],
        packing: Packing | None = None,
    ) -> None:
        self._grid = grid
        self.packing = packing
        self._roster = roster
        self.header = dict(header)
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self.cohort: list[str] = []
        self._sum_unit: float | None = None
        self.totals: list[NodeTotal] = []
        self.clock = Stopwatch()
        self.bytes_down = 0
        self.bytes_up = 0

    def name(self, message: Message) -> str:
        """Return the client that a reply is from."""
        return self._names[message.metadata.src_node_id]

    def set_run(self, run: Run) -> None:
        """Set the run of the physical grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run of the physical grid."""
        return self._grid.run

    def get_node_ids(self) -> Iterable[int]:
        """Return the numbers of the cohort's clients."""
        return [self._number(client) for client in self.cohort]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send each client its message, packed per node; return one reply per client."""
        return self.exchange(messages, timeout=timeout, sum_unit=None)

    def exchange(
        self, messages: Iterable[Message], *, timeout: float | None, sum_unit: float | None
    ) -> list[Message]:
        """Send each client its message, packed per node; return one reply per client.

        With `sum_unit` (`reduction.Reduction.unit`) nodes may add up the models of their clients;
        `totals` holds those sums afterwards.

        A client without a usable answer gets an error reply that says why. Replies come in the
        order of the client ids, so that sums do not depend on who was first.
        """
        self._sum_unit = sum_unit
        asked = {self._names[m.metadata.dst_node_id]: m for m in messages}
        if self.packing is not None:
            pack_models(self.packing, asked.values())
        self.bytes_down += sum(_sizes(m.content for m in asked.values()))
        by_node: dict[int, dict[str, Message]] = {}
        for client in sorted(asked):
            by_node.setdefault(self._roster.members[client].node, {})[client] = asked[client]
        requests = [self._pack(node, told) for node, told in by_node.items()]
        self.totals = []
        answers: dict[str, RecordDict | str] = dict.fromkeys(asked, "no answer in time")
        for node, reply in _single(self._grid.send_and_receive(requests, timeout=timeout)).items():
            told = by_node.get(node, {})
            answers |= self._unpack(reply, told)
        replies = [_answer(asked[client], answers[client]) for client in sorted(asked)]
        self.bytes_up += sum(_sizes(r.content for r in replies if r.has_content()))
        self.bytes_up += sum(
            _unsent(total, client, asked[client].content)
            for total in self.totals
            for client in total.clients
        )
        return replies

    def send(self, message: Message) -> str:
        """Send a client its message, and do not wait; return the id to `receive` the answer by.

        It is empty if the message could not be sent.
        """
        client = self.receiver(message)
        if self.packing is not None:
            pack_models(self.packing, [message])
        self.bytes_down += wire_bytes(message.content)
        self._sum_unit = None
        request = self._pack(self._roster.members[client].node, {client: message})
        return next(iter(self._grid.push_messages([request])), None) or ""

    def receive(self, asked: Mapping[str, Message], deadline: float) -> dict[str, Message]:
        """Return the answers to messages that were sent, as soon as there are any.

        Parameters
        ----------
        asked : mapping of str to Message
            What was sent, by the ids that `send` returned.
        deadline : float
            When to stop waiting, on the clock of `time.monotonic`.
        """
        came: dict[str, list[Message]] = {}
        for reply in arrivals(self._grid, set(asked), deadline):
            came.setdefault(reply.metadata.reply_to_message_id, []).append(reply)
        answers = {}
        for number in came.keys() & asked.keys():
            message, (first, *more) = asked[number], came[number]
            client = self.receiver(message)
            told = self._unpack(None if more else first, {client: message})
            answers[number] = _answer(message, told[client])
        self.bytes_up += sum(wire_bytes(a.content) for a in answers.values() if a.has_content())
        return answers

    def ask(
        self, kind: str, contents: Mapping[str, RecordDict], timeout: float | None
    ) -> dict[str, RecordDict | str]:
        """Send clients these contents; return each one's answer, or why there is none."""
        there = {c: told for c, told in contents.items() if c in self._roster.members}
        messages = [Message(told, self._number(c), kind) for c, told in there.items()]
        replies = self.send_and_receive(messages, timeout=timeout)
        return dict.fromkeys(contents, "its node left") | {
            self.name(reply): reply.content
            if reply.has_content()
            else reply.error.reason or "no reason given"
            for reply in replies
        }

    def receiver(self, message: Message) -> str:
        """Return the client that a message is for."""
        return self._names[message.metadata.dst_node_id]

    def _pack(self, node: int, told: Mapping[str, Message]) -> Message:
        first = next(iter(told.values()))
        header = self.header | {"rows": {c: self._roster.members[c].train for c in told}}
        if self._sum_unit is not None:
            header["sum_unit"] = self._sum_unit
        cohort = Cohort({c: m.content for c, m in told.items()}, header=header)
        return Message(
            cohort.pack(), node, first.metadata.message_type, group_id=first.metadata.group_id
        )

    def _unpack(
        self, reply: Message | None, told: Mapping[str, Message]
    ) -> dict[str, RecordDict | str]:
        if reply is None:
            return dict.fromkeys(told, "its node answered more than once")
        digests = {key: self.header[key] for key in ("config", "code")}
        try:
            cohort = read_reply(reply, digests)
        except WireError as error:
            return dict.fromkeys(told, str(error))
        self.clock.add(_seconds(cohort.header.get("clock")))
        answers: dict[str, RecordDict | str] = {}
        for client in told:
            if client in cohort.parts:
                answers[client] = cohort.parts[client]
            else:
                answers[client] = cohort.errors.get(client, "its node left it out")
        if self._sum_unit is not None and cohort.total is not None:
            summed = frozenset(
                c for c in told if c in cohort.parts and not records(cohort.parts[c], ArrayRecord)
            )
            if not summed:
                # It would be added to the model, and weigh nothing.
                alone = "its node sent a sum that holds none of its clients"
                return {client: cohort.errors.get(client, alone) for client in told}
            self.totals.append(NodeTotal(summed, cohort.total, _unsent_of(cohort)))
        return answers

    def _number(self, client: str) -> int:
        if client not in self._numbers:
            number = len(self._numbers) + 1
            self._numbers[client], self._names[number] = number, client
        return self._numbers[client]


def _single(replies: Iterable[Message]) -> dict[int, Message | None]:
    """Return each node's answer, or None where it gave several: no one of them is better."""
    single: dict[int, Message | None] = {}
    for reply in replies:
        node = reply.metadata.src_node_id
        single[node] = None if node in single else reply
    return single


def failure(asked: Message, reason: str) -> Message:
    """Return the answer of a client that gave none, and why."""
    return Message(Error(CLIENT_FAILED, reason), reply_to=asked)


def _answer(asked: Message, answer: RecordDict | str) -> Message:
    if isinstance(answer, str):
        return failure(asked, answer)
    return Message(answer, reply_to=asked)


def _unsent(total: NodeTotal, client: str, asked: RecordDict) -> int:
    """Return the bytes of the model that a client would have sent, had it not been added up.

    It is as large as the one that the client got, unless it was compressed.
    """
    models = records(asked, ArrayRecord)
    plain = sum(len(array.data) for arrays in models for array in arrays.values())
    return min(total.unsent.get(client, plain), _MOST_TIMES * plain)


def _unsent_of(cohort: Cohort) -> dict[str, int]:
    """Return what a node says of the bytes that its clients did not send, as far as it is bytes."""
    claimed = cohort.header.get(UNSENT)
    if not isinstance(claimed, dict):
        return {}
    return {str(c): size for c, size in claimed.items() if type(size) is int and size >= 0}


def _seconds(claimed: Any) -> dict[str, float]:
    """Return what a node says of its time, as far as it makes sense."""
    if not isinstance(claimed, dict) or len(claimed) > _MOST_STAGES:
        return {}
    return {
        k: v
        for k, v in claimed.items()
        if is_plain(k, _MOST_STAGES) and isinstance(v, float) and 0 <= v < math.inf
    }


def _sizes(contents: Iterable[RecordDict]) -> Iterable[int]:
    """Yield the size of each content; equal objects are measured once."""
    known: dict[int, int] = {}
    for content in contents:
        if id(content) not in known:
            known[id(content)] = wire_bytes(content)
        yield known[id(content)]
