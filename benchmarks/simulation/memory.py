"""The memory of a program with all its processes."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import psutil

PERIOD = 0.2
"""Seconds between two looks, at least."""
SHARE = 0.05
"""Of a core, at most, for looking: Ray's fifteen processes would cost a quarter of one."""


class PeakMemory:
    """The largest proportional set size (PSS) of a process and its descendants, in bytes."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        """Start looking."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop looking."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        pause = PERIOD
        while not self._ended.wait(pause):
            started = time.thread_time()
            self.peak = max(self.peak, self._now())
            pause = max(PERIOD, (time.thread_time() - started) / SHARE)

    def _now(self) -> int:
        total = 0
        with suppress(psutil.Error):
            for process in [self._process, *self._process.children(recursive=True)]:
                with suppress(psutil.Error):
                    total += process.memory_full_info().pss
        return total
