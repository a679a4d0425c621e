"""Where a round's time went, on the server and on the workers (``profile=true``)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from conf.schema import Engine, Settings
from server_app.federation.grid import ClientGrid
from task.profiling import Stopwatch

EXCHANGE = "exchange"
"""The stage of waiting for clients; what they did meanwhile takes its place in the profile."""


class Profile:
    """One round's.

    Parameters
    ----------
    grid : ClientGrid
        Collects what nodes report.
    settings : Settings
        With ``profile``, and how many processes share the work.

    Attributes
    ----------
    clock : Stopwatch
        Times the server's stages.
    """

    def __init__(self, grid: ClientGrid, settings: Settings) -> None:
        self.clock = Stopwatch()
        self._grid = grid
        self._wanted = settings.profile
        federation = settings.federation
        self._processes = federation.workers or os.cpu_count() or 1
        if federation.engine is Engine.remote:
            self._processes = federation.nodes or 1
        grid.clock = Stopwatch()

    def line(self, elapsed: float) -> Mapping[str, Any]:
        """Return ``{"profile": seconds by stage}``, or nothing if it is not wanted.

        Work of clients counts by its share of the processes that do it at the same time; what is
        left of an exchange is transport and waiting for the last of them.
        """
        if not self._wanted:
            return {}
        stages = dict(self.clock.seconds)
        work = {name: s / self._processes for name, s in self._grid.clock.seconds.items()}
        stages["transport"] = max(0.0, stages.pop(EXCHANGE, 0.0) - sum(work.values()))
        stages |= work
        stages["rest"] = max(0.0, elapsed - sum(stages.values()))
        return {"profile": {name: round(s, 5) for name, s in stages.items()}}
