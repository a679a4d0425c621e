"""One simulation on a Ray cluster of two nodes, both on loopback: same model, both at work."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from server_app.engines.superlink import program, quiet_environment
from server_app.evidence import files
from task.ports import free_port
from tests.conftest import run_nodes
from tests.flower import assert_same_run, running, start, wait_for

pytestmark = pytest.mark.slow
TOLD = ("rounds=2", "model.hidden=[8]")
QUIET = ("--disable-usage-stats", "--num-cpus=1", "--block")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[int]]]:
    """Two nodes of one core each: the cluster's address, and the nodes' processes."""
    ray, port = program("ray"), free_port()
    first = [ray, "start", "--head", f"--port={port}", "--include-dashboard=false", *QUIET]
    other = [ray, "start", f"--address=127.0.0.1:{port}", *QUIET]
    # In a folder of its own, or Ray would tell other programs to join when the cluster is gone.
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        environment = quiet_environment() | {"RAY_worker_niceness": "0", "RAY_TMPDIR": folder}
        with running(first, tmp_path / "first", environment) as head:
            wait_for(lambda: "started" in (tmp_path / "first" / "log").read_text(), 90)
            with running(other, tmp_path / "second", environment) as second:
                wait_for(lambda: "started" in (tmp_path / "second" / "log").read_text(), 90)
                yield f"127.0.0.1:{port}", [head.pid, second.pid]


def actors(pid: int) -> int:
    """Count the processes below `pid` that serve clients."""
    count = 0
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):
            count += "ClientAppActor" in " ".join(process.cmdline())
    return count


def test_two_machines_of_a_cluster_share_a_simulation(
    cluster: tuple[str, list[int]], tmp_path: Path
) -> None:
    address, nodes = cluster
    alone = run_nodes(tmp_path / "alone", *TOLD)
    command = start(
        *TOLD, "federation=flower", f"federation.ray={address}", "federation.nodes=2",
        f"hydra.run.dir={tmp_path / 'cluster'}",
    )  # fmt: skip
    most = [0, 0]
    while command.poll() is None:
        most = [max(pair) for pair in zip(most, map(actors, nodes), strict=True)]
        time.sleep(0.5)
    assert command.returncode == 0, command.communicate()
    assert most == [1, 1]
    assert (tmp_path / "cluster" / files.MODEL).read_bytes() == alone.model
    assert_same_run(tmp_path / "cluster", alone.directory)
