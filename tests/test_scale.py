"""One simulation on a Ray cluster of two nodes, both on loopback: same model, both at work."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from server_app.engines.superlink import free_port, program, quiet_environment
from server_app.evidence import files
from tests.flower import fedproof, running, start, wait_for

pytestmark = pytest.mark.slow
TOLD = ("rounds=2", "model.hidden=[8]")
QUIET = ("--disable-usage-stats", "--num-cpus=1", "--block")


def actors(pid: int) -> int:
    """Count the processes below `pid` that serve clients."""
    count = 0
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            count += "ClientAppActor" in " ".join(process.cmdline())
    return count


def test_two_machines_of_a_cluster_share_a_simulation(tmp_path: Path) -> None:
    alone = fedproof(*TOLD, f"hydra.run.dir={tmp_path / 'alone'}")
    assert alone.returncode == 0, alone.stderr
    port = free_port(None)
    ray, environment = program("ray"), quiet_environment() | {"RAY_worker_niceness": "0"}
    first = [ray, "start", "--head", f"--port={port}", "--include-dashboard=false", *QUIET]
    other = [ray, "start", f"--address=127.0.0.1:{port}", *QUIET]
    with running(first, tmp_path / "first", environment) as head:
        wait_for(lambda: "started" in (tmp_path / "first" / "log").read_text(), 90)
        with running(other, tmp_path / "second", environment) as second:
            wait_for(lambda: "started" in (tmp_path / "second" / "log").read_text(), 90)
            command = start(
                *TOLD, "federation=flower", f"federation.ray=127.0.0.1:{port}",
                "federation.nodes=2", f"hydra.run.dir={tmp_path / 'cluster'}",
            )  # fmt: skip
            seen = {head.pid: 0, second.pid: 0}
            while command.poll() is None:
                seen = {pid: max(most, actors(pid)) for pid, most in seen.items()}
                time.sleep(0.5)
            assert command.returncode == 0, command.communicate()
    assert set(seen.values()) == {1}, f"{seen} {sys.platform}"
    models = [(tmp_path / name / files.MODEL).read_bytes() for name in ("alone", "cluster")]
    assert models[0] == models[1]
