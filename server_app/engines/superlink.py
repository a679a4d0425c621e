"""A SuperLink of our own for one simulation, ended whatever happens."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from conf.errors import FedproofError

CONNECTION = "fedproof"
STARTUP = 60.0
_THEN_RUN = """
import runpy, sys
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
TUNED = {
    # How often the SuperLink's SuperExec looks for a run to start: once a second otherwise.
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    # Ray lowers its workers' priority by 15 unless told otherwise.
    "RAY_worker_niceness": "0",
    # The workers that it starts beforehand lack the runtime environment that Flower asks for.
    "RAY_prestart_worker_first_driver": "0",
}


@dataclass(frozen=True)
class Server:
    """A server that may be starting.

    Attributes
    ----------
    address : str
        ``HOST:PORT``.
    ready : callable
        Returns once it answers; raises FedproofError if it does not start.
    """

    address: str
    ready: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Link:
    """How to reach a SuperLink.

    Attributes
    ----------
    connection : str
        As ``flwr`` knows it.
    environment : mapping of str to str
        For ``flwr``.
    ready : callable
        Returns once the SuperLink answers; raises FedproofError if it does not start.
    """

    connection: str
    environment: Mapping[str, str]
    ready: Callable[[], None] = lambda: None


def quiet_environment() -> dict[str, str]:
    """Return this environment without telemetry, update checks and per-run installation.

    Flower starts its own programs by name, so those of this Python environment must be found.
    """
    return os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PYTHONUNBUFFERED": "1",
    }


def program(name: str) -> str:
    """Return the path of a program of this Python environment."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise FedproofError(f"'{name}' is not installed: install fedproof with its dependencies.")
    return found


def prepared(preparation: str, script: str) -> list[str]:
    """Return the start of a command that runs some Python, then a Python program beside it."""
    return [sys.executable, "-P", "-c", preparation + _THEN_RUN, script]


@contextmanager
def own_superlink(port: int, ray: Server | None = None) -> Iterator[Link]:
    """Start a SuperLink for simulations on loopback; end it and its children on exit.

    That takes it seconds, which the caller can use before it asks whether the link is ready.

    It runs in an empty directory, because Ray puts the working directory on its workers' module
    path, and in a private Flower home.

    Parameters
    ----------
    port : int
        Where it listens.
    ray : Server or None
        The Ray cluster that runs the simulations; None: each starts Ray itself.
    """
    with tempfile.TemporaryDirectory(prefix="fedproof-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n'
            f'[superlink.{CONNECTION}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        environment = quiet_environment() | TUNED | {
            "FLWR_HOME": str(home),
            # Without it, a simulation joins whatever cluster it finds on this machine.
            "RAY_ADDRESS": ray.address if ray else "local",
        }  # fmt: skip
        command = [
            program("flower-superlink"), "--simulation", "--insecure",
            "--host", "127.0.0.1", "--port", str(port),
        ]  # fmt: skip
        with serving("Flower's SuperLink", command, port, Path(folder), environment) as server:

            def ready() -> None:
                if ray:
                    ray.ready()
                server.ready()

            yield Link(CONNECTION, environment, ready)


@contextmanager
def serving(
    name: str, command: Sequence[str], port: int, folder: Path, environment: Mapping[str, str]
) -> Iterator[Server]:
    """Start a program that will listen on loopback; end it and its children on exit.

    Parameters
    ----------
    name : str
        What it is called in messages.
    command : sequence of str
        How it is started.
    port : int
        Where it will listen.
    folder : Path
        Where it runs, in an empty folder, and where its log is.
    environment : mapping of str to str
        Its own.
    """
    neutral, path = folder / "empty", folder / "log"
    neutral.mkdir()
    with path.open("wb") as log:
        process = subprocess.Popen(
            command, env=dict(environment), cwd=neutral, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield Server(f"127.0.0.1:{port}", partial(_await_port, name, process, port, path))
    finally:
        end_tree(process.pid)
        process.wait()


def end_tree(pid: int, *, politely: bool = True) -> None:
    """End a process and all its descendants: politely first, unless told not to, then for good."""
    try:
        parent = psutil.Process(pid)
        family = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return
    for process in family if politely else ():
        _signal(process, kill=False)
    _, alive = psutil.wait_procs(family, timeout=5 if politely else 0)
    for process in alive:
        _signal(process, kill=True)
    psutil.wait_procs(alive, timeout=5)


def _signal(process: psutil.Process, *, kill: bool) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill() if kill else process.terminate()


def _await_port(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTUP
    while time.monotonic() < deadline:
        if process.poll() is not None:
            last = (log.read_text(errors="replace").strip().splitlines() or ["no message"])[-1]
            raise FedproofError(f"{name} did not start: {last}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise FedproofError(f"{name} did not answer within {STARTUP:g} s: try again.")
