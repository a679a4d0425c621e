"""When simulated clients of different speeds start and finish, for asynchronous aggregation."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conf.errors import FedproofError
from conf.schema import Settings
from server_app.samplers._base import Sampler
from task.options import real, whole
from task.seeding import generator


@dataclass(frozen=True)
class Flush:
    """What is in the buffer when it is full.

    Attributes
    ----------
    starts : dict of str to int
        Who finished, and after how many flushes each had been given its model.
    clock : float
        When the last of them finished: simulated, where one row takes a client of median speed
        one unit, or the seconds since somebody first started in this process.
    awaited : frozenset of int
        After how many flushes those were given their models who are still at work.
    """

    starts: dict[str, int]
    clock: float
    awaited: frozenset[int]


class Buffered(Sampler):
    """The schedule of FedBuff (Nguyen et al. 2022, Algorithm 1) on a simulated clock.

    It does not depend on what is learnt: a function of seed, clients and their rows, worked out
    anew after a restart. A client in the buffer is not started again before the flush.

    Parameters
    ----------
    settings : Settings
        With ``strategy.buffer`` answers to a flush, ``strategy.concurrency`` clients at work at
        any time, and ``strategy.speed_spread``: standard deviation of the logarithm of the time
        that a client takes per row.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        options = settings.strategy.options
        self._size = whole(options, "strategy.buffer", 1)
        self._concurrency = whole(options, "strategy.concurrency", 1)
        self._spread = real(options, "strategy.speed_spread")
        self._flushes: list[Flush] = []
        self._rows: dict[str, int] = {}
        self._running: list[tuple[float, str, int]] = []
        self._buffer: dict[str, int] = {}
        self._clock = 0.0
        self._started = 0

    def draw(
        self, rows: Mapping[str, int], fraction: float, number: int, attempt: int
    ) -> list[str]:
        """Return who is in the buffer at the round's flush."""
        return sorted(self.flush(rows, number).starts)

    def flush(self, rows: Mapping[str, int], number: int) -> Flush:
        """Return the flush that ends round `number`, from 1.

        Raises
        ------
        FedproofError
            If there are too few clients, or others than before.
        """
        if not self._rows:
            self._rows = dict(rows)
        if self._size > len(rows) or self._rows != rows:
            raise FedproofError(
                f"strategy.buffer={self._size} needs as many clients, the same ones in all rounds; "
                f"there are {len(rows)}."
            )
        while len(self._flushes) < number:
            self._flushes.append(self._next())
        return self._flushes[number - 1]

    def _next(self) -> Flush:
        while len(self._buffer) < self._size:
            self._start()
            self._clock, client, version = heapq.heappop(self._running)
            self._buffer[client] = version
        starts, self._buffer = self._buffer, {}
        return Flush(starts, self._clock, frozenset(version for *_, version in self._running))

    def _start(self) -> None:
        """Start clients until as many are at work as may be."""
        busy = {client for _, client, _ in self._running} | set(self._buffer)
        idle = sorted(set(self._rows) - busy)
        while idle and len(self._running) < self._concurrency:
            client = drawn(self._seed, idle, self._started)
            idle.remove(client)
            self._started += 1
            ends = self._clock + self._rows[client] * self._pace(client)
            heapq.heappush(self._running, (ends, client, len(self._flushes)))

    def _pace(self, client: str) -> float:
        return math.exp(self._spread * generator(self._seed, "speed", client).standard_normal())


def drawn(seed: int, idle: Sequence[str], started: int) -> str:
    """Return which of the idle clients starts, after so many others."""
    return idle[int(generator(seed, "start", started).integers(len(idle)))]
