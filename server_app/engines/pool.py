"""Worker processes that answer messages, supervised: one that dies or hangs is replaced."""

from __future__ import annotations

import logging
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Self

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from server_app.engines import forkserver
from server_app.engines.shared import Outbox, Parcel, Port

RAISED = 2
"""Flower's error code of a ClientApp that raised."""
DIED = 8
"""Flower's error code of a ClientApp that crashed."""
LATE = 100
"""Our own, for one that did not answer in time."""


class Pool:
    """As many worker processes as asked for, each with one thread of computation.

    Workers fork from a server process that has imported torch once (`forkserver`).

    Parameters
    ----------
    size : int
        Number of workers.
    context : Context
        What the ClientApp is called with.
    app_dir : str
        Directory of the application.
    """

    def __init__(self, size: int, context: Context, app_dir: str) -> None:
        self.size = size
        self._start = forkserver.start()
        self._arguments = (context, app_dir)
        self._outbox = Outbox()
        self._workers = [self._new() for _ in range(size)]

    def __enter__(self) -> Self:
        """Return the pool."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the workers, busy or not."""
        for worker in self._workers:
            worker.end()
        self._outbox.close()

    def ask(
        self, messages: Sequence[Message], timeout: float | None
    ) -> Iterator[tuple[int, Message]]:
        """Yield each message's position and answer as they come; free workers take the next ones.

        A message whose worker dies, or does not answer before `timeout` seconds from now, is
        answered by an error; the worker is replaced. Array data of an answer is valid until the
        next one is asked for: its worker's memory is used again.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting = deque(enumerate(self._outbox.pack(messages)))
        busy: dict[int, int] = {}
        for slot in range(min(self.size, len(messages))):
            self._give(slot, waiting, busy)
        while busy:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            slots = {self._workers[slot].port.pipe: slot for slot in busy}
            ready = wait(list(slots), left)
            if not ready:
                for slot in busy:
                    self._replace(slot)
                for index in [*busy.values(), *(index for index, _ in waiting)]:
                    yield index, _error(messages[index], LATE, "no answer in time")
                return
            for pipe in ready:
                assert isinstance(pipe, Connection)
                slot = slots[pipe]
                index = busy.pop(slot)
                yield index, self._receive(slot, messages[index])
                self._give(slot, waiting, busy)

    def _give(self, slot: int, waiting: deque[tuple[int, Parcel]], busy: dict[int, int]) -> None:
        if not waiting:
            return
        index, parcel = waiting.popleft()
        busy[slot] = index
        try:
            self._workers[slot].port.send(parcel)
        except OSError:
            # It died while it had nothing to do.
            self._replace(slot)
            self._workers[slot].port.send(parcel)

    def _receive(self, slot: int, asked: Message) -> Message:
        try:
            answer = self._workers[slot].port.receive()
        except (EOFError, OSError):
            self._replace(slot)
            return _error(asked, DIED, "its worker process died")
        assert isinstance(answer, Message)
        return answer

    def _replace(self, slot: int) -> None:
        self._workers[slot].end()
        self._workers[slot] = self._new()

    def _new(self) -> Worker:
        mine, theirs = self._start.Pipe()
        process = self._start.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
        process.start()
        theirs.close()
        return Worker(process, Port(mine, self._outbox))


class Worker:
    """A process and this end of the pipe to it."""

    def __init__(self, process: BaseProcess, port: Port) -> None:
        self.process = process
        self.port = port

    def end(self) -> None:
        """Kill the process; it holds nothing that could be lost."""
        self.process.kill()
        self.process.join()
        self.port.pipe.close()


def _error(asked: Message, code: int, reason: str) -> Message:
    return Message(Error(code, reason), reply_to=asked)


def _work(pipe: Connection, context: Context, app_dir: str) -> None:
    """Answer messages until the pipe closes."""
    from flwr.supercore.object_ref import load_app

    from server_app.compat import adopt_identity

    # Ctrl-C reaches the whole process group; the parent decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Refusals are answers, and the command tells them; a silo's node logs them, too.
    logging.getLogger("client_app").setLevel(logging.ERROR)
    adopt_identity(context.run_id)
    client_app = load_app("client_app.app:app", RuntimeError, app_dir)
    assert isinstance(client_app, ClientApp)
    outbox = Outbox()
    port = Port(pipe, outbox)
    # Without its parent a worker has nothing left to do, nor anyone to tell.
    with suppress(EOFError, OSError):
        while True:
            answer = _answer(client_app, port.receive(), context)
            port.send(outbox.pack([answer])[0])


def _answer(client_app: ClientApp, message: Message, context: Context) -> Message:
    try:
        return client_app(message, context)
    except Exception as error:
        return _error(message, RAISED, f"{type(error).__name__}: {error}")
