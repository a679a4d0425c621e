"""Engine ``flower``: a simulation by Flower itself, on Ray and a SuperLink of our own.

Ray is started for the run, or is a cluster of several machines that runs already.
"""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from conf.errors import FedproofError
from conf.schema import Settings
from server_app.engines.ray import own_ray
from server_app.engines.submit import submit
from server_app.engines.superlink import Server, own_superlink
from server_app.evidence.events import Watcher
from task.ports import free_port, is_free


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

    Raises
    ------
    FedproofError
        If the port is in use, the Ray cluster or the SuperLink cannot be reached, or the run did
        not complete.
    """
    federation = settings.federation
    workers = federation.workers or os.cpu_count() or 1
    nodes = federation.nodes or workers
    simulation = [f"num-supernodes={nodes}", "client-resources-num-cpus=1"]
    pinned = [*overrides, f"federation.nodes={nodes}"]
    port = _port(federation.port)
    with _ray(federation.ray, workers) as ray, own_superlink(port, ray) as link:
        submit(link, app_dir, shlex.join(pinned), simulation, watcher)


def _port(wanted: int | None) -> int:
    if wanted is None:
        return free_port()
    if not is_free(wanted):
        raise FedproofError(
            f"federation.port={wanted} is in use: give another one, or none to take a free one."
        )
    return wanted


def _ray(address: str | None, workers: int) -> AbstractContextManager[Server]:
    """Return the cluster at an address, or one of our own.

    Raises
    ------
    FedproofError
        If none answers there.
    """
    if address is None:
        return own_ray(workers)
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError):
        raise FedproofError(
            f"no Ray cluster answers at federation.ray={address}: start one with "
            f"'ray start --head --port={port}'."
        ) from None
    return nullcontext(Server(address))
