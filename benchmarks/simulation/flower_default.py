"""A small ordinary Flower app under ``flwr run``, with the settings that Flower comes with.

    python -m benchmarks.simulation.flower_default W1

The app is that of Flower's PyTorch quickstart: one message per client, FedAvg, a DataLoader
(`benchmarks.simulation.quickstart`). Only the number of SuperNodes is set: one per client.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.simulation.worker import arguments, tell
from benchmarks.simulation.workloads import WORKLOADS
from server_app.engines.superlink import end_tree, program, quiet_environment
from task.ports import free_port

_CONNECTION = "benchmark"
_HERE = Path(__file__).parent
_SHARED = ["__init__.py", "work.py", "worker.py", "workloads.py"]
_LAP = re.compile(r'\{"round": \d+, "seconds": [\d.]+\}')


def lay_out(app: Path) -> None:
    """Write the app's source: the quickstart, and what it trains, under their own names."""
    package = app / "benchmarks" / "simulation"
    shutil.copytree(
        _HERE / "quickstart", package / "quickstart", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in _SHARED:
        shutil.copy(_HERE / name, package)
    shutil.copy(_HERE.parent / "__init__.py", package.parent)
    (package / "quickstart" / "pyproject.toml").rename(app / "pyproject.toml")


@contextmanager
def superlink(folder: Path) -> Iterator[Mapping[str, str]]:
    """Start Flower's simulation server; yield the environment in which ``flwr`` finds it.

    Not `own_superlink`, which sets what Fedproof wants otherwise than Flower does.
    """
    home, neutral = folder / "home", folder / "empty"
    home.mkdir()
    neutral.mkdir()
    port = free_port()
    (home / "config.toml").write_text(
        f'[superlink.{_CONNECTION}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    environment = quiet_environment() | {"FLWR_HOME": str(home)}
    process = subprocess.Popen(
        [program("flower-superlink"), "--simulation", "--insecure",
         "--host", "127.0.0.1", "--port", str(port)],
        env=environment, cwd=neutral, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not _listens(port) and process.poll() is None:
            time.sleep(0.1)
        yield environment
    finally:
        end_tree(process.pid)
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    """Run the app, telling each round."""
    told = arguments(__doc__).parse_args()
    # Being ended politely is Ctrl-C by other means: the SuperLink and Ray end, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        folder = Path(root)
        lay_out(folder / "app")
        with superlink(folder) as environment:
            command = [
                program("flwr"), "run", str(folder / "app"), _CONNECTION, "--stream",
                "--run-config", f'workload="{told.workload}" rounds={told.rounds}',
                "--federation-config", f"num-supernodes={WORKLOADS[told.workload].clients}",
            ]  # fmt: skip
            count, last = _follow(command, environment)
    if count < told.rounds:
        sys.exit("\n".join(last))


def _follow(command: list[str], environment: Mapping[str, str]) -> tuple[int, deque[str]]:
    """Tell the rounds; return how many there were, and the last lines of the log."""
    count, last = 0, deque[str](maxlen=20)
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        for line in child.stdout:
            last.append(line.rstrip())
            if found := _LAP.search(line):
                lap = json.loads(found[0])
                tell(lap["round"], lap["seconds"])
                count += 1
    return count, last


if __name__ == "__main__":
    main()
