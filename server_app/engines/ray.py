"""A Ray of our own for one simulation, which starts while the SuperLink does.

Left to Flower, it starts once all else has. What forwards the actors' prints, and what would ask
for more machines, is left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server_app.engines.superlink import (
    TUNED,
    Server,
    free_port,
    program,
    quiet_environment,
    serving,
)


@contextmanager
def own_ray(cores: int) -> Iterator[Server]:
    """Start Ray on loopback; end it and its children on exit.

    Parameters
    ----------
    cores : int
        How many actors it has room for.
    """
    # In a folder of its own, no other program finds it; sockets' paths have to be short.
    with tempfile.TemporaryDirectory(
        prefix="fedproof-", dir="/tmp", ignore_cleanup_errors=True
    ) as folder:
        port = free_port(None)
        command = [
            program("ray"), "start", "--head", "--block", "--disable-usage-stats",
            f"--num-cpus={cores}", f"--temp-dir={folder}", "--node-ip-address=127.0.0.1",
            "--include-dashboard=false", "--include-log-monitor=false", "--no-monitor",
            # Ports that are free, not the usual ones: there may be other clusters.
            "--port", str(port), f"--ray-client-server-port={free_port(None)}",
            f"--dashboard-port={free_port(None)}", "--dashboard-agent-listen-port=0",
            "--min-worker-port=0", "--max-worker-port=0",
        ]  # fmt: skip
        environment = quiet_environment() | TUNED
        with serving("Ray", command, port, Path(folder), environment) as ray:
            yield ray
