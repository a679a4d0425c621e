"""The process that answers a run's messages, forked from one that has imported torch."""

from __future__ import annotations

import logging
import multiprocessing
import signal
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

from conf.flower import hasten

log = logging.getLogger("flwr")
IDLE = 900.0
"""Seconds without a message after which a run's process ends."""
_PRELOADED = ["client_app.cohort", "client_app.secure.serving", "client_app.warm.runtime"]


class Worker:
    """Answers the messages of one run after the other, each run in a process of its own.

    What a run makes a process keep (data, models, settings) thus never meets another run, and a
    process that dies takes one message with it.

    Parameters
    ----------
    address : str
        Of the SuperNode's Runtime API.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._run: int | None = None
        self._process: ForkServerProcess | None = None
        self._pipe: Connection | None = None

    def answer(self, run: int, token: str) -> bool:
        """Answer the message that a token stands for; return whether that was done."""
        if run != self._run or self._process is None or not self._process.is_alive():
            self._start(run)
        assert self._pipe is not None
        try:
            self._pipe.send(token)
            return bool(self._pipe.recv())
        except (EOFError, OSError):
            log.warning(
                "the process that answers run %s died; the next message starts another", run
            )
            return False

    def warm_up(self) -> None:
        """Start the first process, which imports everything, before there is a message."""
        self._start(None)

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None and self._pipe is not None:
            self._pipe.close()
            self._process.join(5)
            if self._process.is_alive():
                self._process.kill()
        self._process = self._pipe = None

    def _start(self, run: int | None) -> None:
        self.stop()
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=serve, args=(self._address, theirs), daemon=True
        )
        self._process.start()
        theirs.close()
        self._run = run


def serve(address: str, tokens: Connection) -> None:
    """Answer one message per token until no more come."""
    from client_app.app import app
    from client_app.warm.runtime import answer

    hasten("flwr.supercore.inflatable.inflatable_utils")
    # Ctrl-C is for the SuperNode, which ends this process in its own time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while tokens.poll(IDLE):
        try:
            token = tokens.recv()
        except EOFError:
            return
        answered = False
        try:
            answer(address, token, app)
            answered = True
        except Exception:
            log.exception("a message was not answered")
        tokens.send(answered)
