"""Start Flower's real programs on loopback; ended by the pids that were started."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from safetensors.torch import load_file

from server_app.deploy import command
from server_app.engines.superlink import end_tree, program, quiet_environment
from server_app.evidence import files
from task.identity import Identity
from task.ports import free_port
from tests.networks import Networks

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def running(
    command: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in `folder`, its output in ``log``, until the block ends."""
    folder.mkdir(parents=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            end_tree(process.pid)
            process.wait()


@contextmanager
def deployment(
    folder: Path, node_configs: Sequence[str], *, warm: bool = True
) -> Iterator[dict[str, str]]:
    """Start a SuperLink and SuperNodes; yield an environment that knows it as ``silos``.

    The SuperNodes are those of `fedproof supernode`, or Flower's own.
    """
    node = [program("fedproof"), "supernode"] if warm else [program("flower-supernode")]
    port = free_port()
    environment = quiet_environment() | {"FLWR_HOME": str(folder / "home")}
    (folder / "home").mkdir(parents=True)
    (folder / "home" / "config.toml").write_text(
        f'[superlink.silos]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    superlink = [program("flower-superlink"), "--insecure", "--port", str(port)]
    with ExitStack() as stack:
        stack.enter_context(running(superlink, folder / "superlink", environment))
        wait_for(lambda: listens(port), 60)
        for i, config in enumerate(node_configs):
            home = {"FLWR_HOME": str(folder / f"node-{i}-home")}
            supernode = [
                *node, "--insecure", "--superlink", f"127.0.0.1:{port}",
                "--port", str(free_port()), "--node-config", config,
            ]  # fmt: skip
            stack.enter_context(running(supernode, folder / f"node-{i}", environment | home))
        yield environment


@contextmanager
def secured(
    folder: Path, silos: Sequence[str], address: str = "127.0.0.1"
) -> Iterator[tuple[dict[str, str], int]]:
    """Start the SuperLink that `fedproof deploy init` writes; yield as `deployment`, and its port.

    With TLS, for registered nodes only.
    """
    port = free_port()
    folder.mkdir(parents=True)
    (folder / "federation.yaml").write_text(
        f"{{name: silos, address: {address}, port: {port}, task: healthcare, "
        f"silos: [{', '.join(silos)}]}}"
    )
    command.main(["init", str(folder)])
    environment = quiet_environment() | {"FLWR_HOME": str(folder / "server" / "home")}
    superlink = ["sh", str(folder / "server" / "start.sh")]
    with running(superlink, folder / "logs" / "superlink", environment):
        wait_for(lambda: listens(port), 60)
        yield environment, port


def flwr_supernode(environment: Mapping[str, str], *words: str) -> str:
    """Run ``flwr supernode``; return what it prints."""
    return subprocess.run(
        [program("flwr"), "supernode", *words], env=dict(environment), check=True,
        capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip


@contextmanager
def federation(
    folder: Path, data: Mapping[str, Path], policy: str, places: Networks
) -> Iterator[tuple[dict[str, str], int]]:
    """Start a secured SuperLink and silos with these data; yield as `secured`.

    Each silo has its own keys, roster, policy and network.
    """
    with (
        secured(folder, list(data), places.server) as (environment, port),
        ExitStack() as stack,
    ):
        rosters = []
        for silo in data:
            kit = folder / "silos" / silo
            command.main(["key", str(kit)])
            public = Identity.read(kit / "identity.key").public
            rosters.append(f"{public.hex()} {silo}\n")
            flwr_supernode(environment, "register", str(kit / "node.pub"), "silos")
        for silo, path in data.items():
            kit = folder / "silos" / silo
            (kit / "roster").write_text("".join(rosters))
            (kit / "policy.yaml").write_text(policy)
            told = quiet_environment() | {"DATA": str(path)}
            start = [*places.within.get(silo, []), "sh", str(kit / "start.sh")]
            stack.enter_context(running(start, folder / "logs" / silo, told))
        yield environment, port


def listens(port: int) -> bool:
    """Return whether something on loopback listens at a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def fedproof(
    *arguments: str, environment: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    return subprocess.run(
        [program("fedproof"), *arguments],
        env=None if environment is None else dict(environment), cwd=cwd, text=True, check=False,
        stdin=subprocess.DEVNULL, capture_output=True, timeout=500,
    )  # fmt: skip


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start the command as a terminal does: open to Ctrl-C, however these tests were started."""
    return subprocess.Popen(
        [program("fedproof"), *arguments], cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip


def wait_for(condition: object, seconds: float) -> None:
    """Wait until ``condition()`` is true."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def assert_same_run(directory: Path, reference: Path) -> None:
    """Check that two runs trained the same model, and say the same of it."""
    model, expected = (load_file(d / files.MODEL) for d in (directory, reference))
    assert list(model) == list(expected)
    assert all(model[key].equal(expected[key]) for key in model)
    mine, theirs = (files.read_json(d / files.SUMMARY) for d in (directory, reference))
    for key in ("held_out", "clients", "rounds", "bytes_down", "bytes_up", "digests"):
        assert mine[key] == theirs[key], key
