"""Worker processes that answer messages, supervised: one that dies or hangs is replaced."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from server_app.engines import forkserver

WORKER_DIED = 8
"""Flower's error code of a ClientApp that crashed."""
# Flower keeps array data in memoryviews, which pickle does not know.
ForkingPickler.register(memoryview, lambda view: (memoryview, (view.tobytes(),)))


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

    def ask(self, messages: Sequence[Message], timeout: float | None) -> list[Message]:
        """Return the answer to each message, in order; a free worker takes the next one.

        A message whose worker dies, or does not answer before `timeout` seconds from now, is
        answered by an error; the worker is replaced.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting: SimpleQueue[int] = SimpleQueue()
        for index in range(len(messages)):
            waiting.put(index)
        answers: dict[int, Message] = {}
        bugs: list[Exception] = []

        def attend(slot: int) -> None:
            while not bugs:
                try:
                    index = waiting.get_nowait()
                    answers[index] = self._exchange(slot, messages[index], deadline)
                except Empty:
                    return
                except Exception as error:
                    bugs.append(error)

        threads = [
            threading.Thread(target=attend, args=(slot,), daemon=True)
            for slot in range(min(self.size, len(messages)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if bugs:
            raise bugs[0]
        return [answers[index] for index in range(len(messages))]

    def _exchange(self, slot: int, message: Message, deadline: float | None) -> Message:
        worker = self._workers[slot]
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            worker.pipe.send(message)
            if worker.pipe.poll(left):
                answer = worker.pipe.recv()
                assert isinstance(answer, Message)
                return answer
            reason = "no answer in time"
        except (EOFError, OSError):
            reason = "its worker process died"
        worker.end()
        self._workers[slot] = self._new()
        return Message(Error(WORKER_DIED, reason), reply_to=message)

    def _new(self) -> Worker:
        mine, theirs = self._start.Pipe()
        process = self._start.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
        process.start()
        theirs.close()
        return Worker(process, mine)


class Worker:
    """A process and the pipe to it."""

    def __init__(self, process: multiprocessing.process.BaseProcess, pipe: Connection) -> None:
        self.process = process
        self.pipe = pipe

    def end(self) -> None:
        """Kill the process; it holds nothing that could be lost."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _work(pipe: Connection, context: Context, app_dir: str) -> None:
    """Answer messages until the pipe closes."""
    from flwr.supercore.object_ref import load_app

    from server_app.compat import adopt_identity

    # Ctrl-C reaches the whole process group; the parent decides what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    adopt_identity(context.run_id)
    client_app = load_app("client_app.app:app", RuntimeError, app_dir)
    assert isinstance(client_app, ClientApp)
    # Without its parent a worker has nothing left to do, nor anyone to tell.
    with suppress(EOFError, OSError):
        while True:
            pipe.send(_answer(client_app, pipe.recv(), context))


def _answer(client_app: ClientApp, message: Message, context: Context) -> Message:
    try:
        return client_app(message, context)
    except Exception as error:
        return Message(Error(2, f"{type(error).__name__}: {error}"), reply_to=message)
