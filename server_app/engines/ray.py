"""A Ray of our own for one simulation, which starts while the SuperLink does.

Left to Flower, it starts once all else has. What a simulation does not use is left out: what
forwards the actors' prints, asks for more machines, or serves drivers elsewhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server_app.engines.superlink import (
    TUNED,
    Server,
    prepared,
    program,
    quiet_environment,
    serving,
)
from task.ports import free_port

LEAN = """
import contextlib, sys
with contextlib.suppress(ImportError):
    import ray.dashboard.optional_deps
sys.modules |= {"grpc": None, "ray.serve": None}
"""
"""As if Ray's client and Serve were not installed, which ``ray`` has no options for."""


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
        port = free_port()
        command = [
            *prepared(LEAN, program("ray")), "start", "--head", "--block",
            f"--num-cpus={cores}", f"--temp-dir={folder}", "--node-ip-address=127.0.0.1",
            "--disable-usage-stats", "--include-dashboard=false", "--include-log-monitor=false",
            "--no-monitor",
            # Ports that are free, not the usual ones: there may be other clusters.
            "--port", str(port), f"--dashboard-port={free_port()}",
            "--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0",
        ]  # fmt: skip
        environment = quiet_environment() | TUNED
        with serving("Ray", command, port, Path(folder), environment) as ray:
            yield ray
