"""Engine ``local``: ServerApp and ClientApp of this application on a Grid in this process.

No SuperLink and no Ray. The one node of the Grid serves all clients; it deals a cohort to worker
processes in pieces, as they become free, or answers itself if there is one worker only.
"""

from __future__ import annotations

import heapq
import os
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MessageType, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.object_ref import load_app
from flwr.supercore.run import Run
from numpy.typing import NDArray

from conf.schema import Settings
from server_app.compat import adopt_identity, stamp
from server_app.engines.pool import DIED, Pool
from server_app.federation.exchange import ExchangeGrid
from task.arrays import blank, record_of, values_of
from task.profiling import Stopwatch
from task.stacking import stacks
from task.wire import UNSENT, Cohort

NODE = 1
SHARES = (10, 7, 4, 2, 1, 1)
"""A worker's part of a cohort is cut into pieces of these sizes, the largest first, so that the
last ones even out what the clients' sizes could not foresee."""
QUICK = 0.1
"""Seconds of a worker for which a piece of its own is not worth its transport."""


def run_local(settings: Settings, overrides: Sequence[str], app_dir: str) -> None:
    """Run a federation in this process.

    Parameters
    ----------
    settings : Settings
        What `overrides` compose to.
    overrides : sequence of str
        Passed to both apps, as Flower passes a run config.
    app_dir : str
        Directory of the application, as for ``flwr run``.
    """
    run_id = time.time_ns() & (2**62 - 1)
    adopt_identity(run_id)
    run_config: UserConfig = {"overrides": shlex.join(overrides)}
    server_app = load_app("server_app.app:app", RuntimeError, app_dir)
    assert isinstance(server_app, ServerApp)
    # This imports torch, as the workers' forkserver does meanwhile.
    import_module("server_app.run")
    with open_grid(settings, run_id, run_config, app_dir) as grid:
        server_app(grid, Context(run_id, NODE, {}, RecordDict(), run_config))


@contextmanager
def open_grid(
    settings: Settings, run_id: int, run_config: UserConfig, app_dir: str
) -> Iterator[LocalGrid]:
    """Open the Grid, and end its workers whatever happens."""
    simulated: UserConfig = {"partition-id": 0, "num-partitions": 1}
    context = Context(run_id, NODE, simulated, RecordDict(), run_config)
    workers = settings.federation.workers or os.cpu_count() or 1
    if workers == 1:
        yield LocalGrid(InProcess(context, app_dir), context)
        return
    with Pool(workers, context, app_dir) as pool:
        yield LocalGrid(pool, context)


class InProcess:
    """Answers messages in this process, one after the other: nothing can time out."""

    size = 1

    def __init__(self, context: Context, app_dir: str) -> None:
        client_app = load_app("client_app.app:app", RuntimeError, app_dir)
        assert isinstance(client_app, ClientApp)
        self._client_app = client_app
        self._context = context

    def ask(
        self, messages: Sequence[Message], timeout: float | None
    ) -> Iterator[tuple[int, Message]]:
        """Yield the answer to each message; `timeout` cannot be kept."""
        for index, message in enumerate(messages):
            yield index, self._client_app(message, self._context)


class LocalGrid(ExchangeGrid):
    """One node that serves every client.

    Parameters
    ----------
    workers : InProcess or Pool
        Who answers.
    context : Context
        The node's.
    """

    def __init__(self, workers: InProcess | Pool, context: Context) -> None:
        self._workers = workers
        self._run = Run.create_empty(context.run_id)
        # Seconds of a worker per row, by type of message, as it took the last time.
        self._pace: dict[str, float] = {}

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        """Return the id of the one node."""
        return [NODE]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Return the answer to each message."""
        return [self._answer(message, timeout) for message in messages]

    def _answer(self, message: Message, timeout: float | None) -> Message:
        if message.metadata.message_type == MessageType.QUERY:
            for _ in range(2):
                ((_, answer),) = self._workers.ask([stamp(message)], timeout)
                if not (answer.has_error() and answer.error.code == DIED):
                    break
            return answer
        cohort = Cohort.unpack(message.content)
        deadline = None if timeout is None else time.monotonic() + timeout
        joined, started = Joined(), time.monotonic()
        died = self._ask(message, self._deal(message, cohort), joined, deadline)
        seconds = (time.monotonic() - started) * self._workers.size
        self._pace[message.metadata.message_type] = seconds / max(_rows(cohort), 1)
        # Of the clients whose worker died, each is asked again alone: the culprit fails alone.
        alone = [replace(cohort, parts={client: cohort.parts[client]}) for client in died]
        for client in self._ask(message, alone, joined, deadline):
            joined.errors[client] = "its worker process died"
        return Message(joined.cohort().pack(), reply_to=message)

    def _deal(self, message: Message, cohort: Cohort) -> list[Cohort]:
        """Deal a cohort, in fewer pieces if it was fast the last time."""
        size, pace = self._workers.size, self._pace.get(message.metadata.message_type)
        pieces = len(SHARES)
        if pace is not None:
            pieces = min(pieces, 1 + int(pace * _rows(cohort) / size / QUICK))
        return deal(cohort, size, pieces)

    def _ask(
        self,
        message: Message,
        pieces: Sequence[Cohort],
        joined: Joined,
        deadline: float | None,
    ) -> list[str]:
        """Take the pieces' answers into `joined`; return the clients whose worker died."""
        kind = message.metadata.message_type
        requests = [stamp(Message(piece.pack(), NODE, kind)) for piece in pieces]
        left = None if deadline is None else deadline - time.monotonic()
        died: list[str] = []
        for index, answer in self._workers.ask(requests, left) if requests else ():
            if answer.has_error() and answer.error.code == DIED:
                died += pieces[index].parts
            else:
                joined.take(pieces[index], answer)
        return died


def deal(cohort: Cohort, workers: int, each: int) -> list[Cohort]:
    """Cut a cohort into pieces, `each` per worker (`SHARES`), the largest first.

    Clients go to the piece that is fullest afterwards by the least, large clients first: Graham's
    LPT (1969) for pieces of several sizes.
    """
    if workers == 1:
        return [cohort]
    rows = {client: cohort.header.get("rows", {}).get(client, 0) for client in cohort.parts}
    # Clients that train together stay together, whatever the number of workers.
    stack = cohort.header.get("stack", 1)
    units = stacks(rows, stack)
    shares = [share for share in SHARES[:each] for _ in range(workers)][: len(units)]
    pieces: list[tuple[float, int, int, list[list[str]]]]
    pieces = [(0.0, i, 0, []) for i in range(len(shares))]
    for unit in units:
        _, i, load, members = heapq.heappop(pieces)
        load += sum(rows[client] + 1 for client in unit)
        heapq.heappush(pieces, (load / shares[i], i, load, [*members, unit]))
    # The sum of a cohort is wanted also from a piece of one client.
    header = {**cohort.header, "sum_from": 1 if len(cohort.parts) > 1 else 2}
    header.pop("rows", None)
    return [
        Cohort(
            {client: cohort.parts[client] for unit in members for client in unit},
            header=header if stack == 1 else {**header, "stacks": members},
        )
        for _, _, _, members in sorted(pieces, key=lambda piece: (-piece[2], piece[1]))
    ]


def _rows(cohort: Cohort) -> int:
    return sum(cohort.header.get("rows", {}).values())


class Joined:
    """The pieces' answers, as one."""

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}
        self._parts: dict[str, RecordDict] = {}
        self._header: dict[str, Any] = {}
        self._total: tuple[Array, NDArray[Any]] | None = None
        self._clock = Stopwatch()

    def take(self, piece: Cohort, answer: Message) -> None:
        """Take one piece's answer; what lies in its worker's memory is copied or added up."""
        if answer.has_error():
            reason = answer.error.reason or "no reason given"
            self.errors |= dict.fromkeys(piece.parts, reason)
            return
        cohort = Cohort.unpack(answer.content)
        self._parts |= {client: _kept(part) for client, part in cohort.parts.items()}
        self.errors |= cohort.errors
        self._clock.add(cohort.header.get("clock", {}))
        unsent = {**self._header.get(UNSENT, {}), **cohort.header.get(UNSENT, {})}
        self._header |= cohort.header
        if unsent:
            self._header[UNSENT] = unsent
        if "refused" in cohort.header:
            self.errors |= dict.fromkeys(piece.parts, str(self._header.pop("refused")))
        if cohort.total is not None:
            values = values_of(cohort.total["total"])
            if self._total is None:
                self._total = blank(values.shape, values.dtype)
            np.add(self._total[1], values, out=self._total[1])

    def cohort(self) -> Cohort:
        """Return the whole."""
        total = None
        if self._total is not None:
            total = record_of({"total": self._total[0]})
        header = self._header | ({"clock": self._clock.seconds} if self._clock.seconds else {})
        return Cohort(self._parts, self.errors, header, total)


def _kept(part: RecordDict) -> RecordDict:
    """Return a part whose arrays lie in this process's memory."""
    for name, arrays in part.items():
        if isinstance(arrays, ArrayRecord):
            part[name] = ArrayRecord(
                {
                    key: Array(array.dtype, tuple(array.shape), array.stype, bytes(array.data))
                    for key, array in arrays.items()
                }
            )
    return part
