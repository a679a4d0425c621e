"""Which real clients start, and whose answers fill the buffer, for asynchronous aggregation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from flwr.app import Message

from conf.schema import Settings
from server_app.samplers._base import Sampler
from server_app.samplers._buffered import Flush, drawn
from task.options import whole


class Held(NamedTuple):
    """An answer in the buffer, and after how many flushes its client had been given its model."""

    version: int
    reply: Message


class Live(Sampler):
    """The bookkeeping of FedBuff (Nguyen et al. 2022, Algorithm 1) on clients with real speeds.

    A node works for one of its clients at a time. Who is in the buffer, or failed, is not started
    again before the next flush. Nothing of it outlives the process: after a restart nobody is at
    work, and answers to the process before cannot come.

    Parameters
    ----------
    settings : Settings
        With ``strategy.buffer`` and ``strategy.concurrency``.

    Attributes
    ----------
    working : dict of str to int
        Clients at work, and after how many flushes each was given its model.
    buffer : dict of str to Held
        Who answered since, in the order in which answers came.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        options = settings.strategy.options
        self._size = whole(options, "strategy.buffer", 1)
        self._concurrency = whole(options, "strategy.concurrency", 1)
        self.working: dict[str, int] = {}
        self.buffer: dict[str, Held] = {}
        self._failed: set[str] = set()
        self._begun: float | None = None
        self._started = 0

    @property
    def full(self) -> bool:
        """Whether a flush is due."""
        return len(self.buffer) >= self._size

    def draw(
        self, rows: Mapping[str, int], fraction: float, number: int, attempt: int
    ) -> list[str]:
        """Return nobody: whom a round is of is known when it ends. Who failed may try again."""
        self._failed.clear()
        return []

    def start(self, nodes: Mapping[str, int], version: int) -> list[str]:
        """Return who is to start now, from the model after `version` flushes.

        Parameters
        ----------
        nodes : mapping of str to int
            The clients that are there, and the node of each.
        version : int
            What they will be given.
        """
        self._begun = self._begun or time.monotonic()
        busy = {nodes[client] for client in self.working if client in nodes}
        out = self.working.keys() | self.buffer.keys() | self._failed
        started: list[str] = []
        while len(self.working) < self._concurrency:
            idle = [c for c in sorted(nodes) if c not in out and nodes[c] not in busy]
            if not idle:
                break
            client = drawn(self._seed, idle, self._started)
            self._started += 1
            self.working[client] = version
            busy.add(nodes[client])
            out |= {client}
            started.append(client)
        return started

    def finish(self, client: str, reply: Message | None) -> None:
        """Take note that a client is not at work any more; with None, that nothing came of it."""
        version = self.working.pop(client)
        if reply is None:
            self._failed.add(client)
        else:
            self.buffer[client] = Held(version, reply)

    def flush(self) -> tuple[Flush, list[Message]]:
        """Take the first answers out of the buffer, as many as a round has; in the clients' order.

        What came at the same time beyond those stays for the next.
        """
        first = sorted(list(self.buffer)[: self._size])
        held = {client: self.buffer.pop(client) for client in first}
        clock = time.monotonic() - (self._begun or 0.0)
        awaited = {*self.working.values(), *(kept.version for kept in self.buffer.values())}
        flush = Flush({c: kept.version for c, kept in held.items()}, clock, frozenset(awaited))
        return flush, [kept.reply for kept in held.values()]
