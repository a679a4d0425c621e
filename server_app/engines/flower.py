"""Engine ``flower``: a simulation by Flower itself, on Ray and a SuperLink of our own."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from conf.schema import Settings
from server_app.engines.submit import submit
from server_app.engines.superlink import own_superlink
from server_app.evidence.events import Watcher


def run_flower(
    settings: Settings, overrides: Sequence[str], app_dir: Path, watcher: Watcher
) -> None:
    """Simulate with ``flwr run``: as many actors as workers, each node serving a share of clients.

    Parameters
    ----------
    settings : Settings
        What `overrides` compose to.
    overrides : sequence of str
        Passed to both apps.
    app_dir : Path
        The application.
    watcher : callable
        Sees the run's events.
    """
    workers = settings.federation.workers or os.cpu_count() or 1
    nodes = settings.federation.nodes or workers
    simulation = [
        f"num-supernodes={nodes}",
        "client-resources-num-cpus=1",
        f"init-args-num-cpus={workers}",
    ]
    pinned = [*overrides, f"federation.nodes={nodes}"]
    with own_superlink(settings.federation.port) as link:
        submit(link, app_dir, shlex.join(pinned), simulation, watcher)
