"""Where the time goes: seconds by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stopwatch:
    """Adds up the seconds of stages; one inside another pauses the outer one.

    Attributes
    ----------
    seconds : dict
        By stage, in the order in which they first ended.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside: list[float] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside, less the stages within it."""
        started = time.perf_counter()
        self._inside.append(0.0)
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            own = elapsed - self._inside.pop()
            self.seconds[name] = self.seconds.get(name, 0.0) + own
            if self._inside:
                self._inside[-1] += elapsed

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add the seconds of another stopwatch."""
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value
