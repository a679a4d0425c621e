"""Four hospitals' SuperNodes and their SuperLink, each of which a test may end, stop or cut off."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.secure_rounds import silos
from server_app.engines.superlink import end_tree, program, quiet_environment
from server_app.evidence import files
from task.atomic import atomic
from task.ports import free_port
from tests.flower import ROOT, listens, running, wait_for
from tests.proxy import Proxy

NODES = ("federation=remote", "federation.superlink=silos", "federation.nodes=4")


@dataclass(frozen=True)
class Clock:
    """What the processes of one machine take for the time; see ``tests/jumping``.

    Attributes
    ----------
    path : Path
        Of the file that says by how many seconds it is off.
    """

    path: Path

    def __post_init__(self) -> None:
        self.jump(0)

    @property
    def environment(self) -> dict[str, str]:
        """Return what makes a process go by it."""
        return {"PYTHONPATH": str(ROOT / "tests" / "jumping"), "CLOCK": str(self.path)}

    def jump(self, seconds: float) -> None:
        """Put it off by some seconds."""
        with atomic(self.path) as temporary:
            temporary.write_text(str(seconds), encoding="ascii")


@dataclass
class Federation:
    """The processes, and the network between them.

    Attributes
    ----------
    folder : Path
        Where they and their logs are.
    configs : dict of str to str
        The node config of each hospital.
    port : int
        Of the SuperLink.
    superlink : Popen
        The SuperLink.
    nodes : dict of str to Popen
        The SuperNodes, by hospital.
    networks : dict of str to Proxy
        The only way from each of them to the SuperLink.
    clocks : dict of str to Clock
        The clock on the wall of each of them, and of the ``superlink``.
    """

    folder: Path
    configs: dict[str, str]
    port: int
    superlink: subprocess.Popen[bytes] | None = None
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    networks: dict[str, Proxy] = field(default_factory=dict)
    clocks: dict[str, Clock] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stack = ExitStack()
        self._count = 0
        home = self.folder / "home"
        home.mkdir(parents=True)
        (home / "config.toml").write_text(
            f'[superlink.silos]\naddress = "127.0.0.1:{self.port}"\ninsecure = true\n'
        )
        self.environment = quiet_environment() | {"FLWR_HOME": str(home)}

    def start_superlink(self) -> None:
        """Start the SuperLink, with the database that it had if it ran before."""
        command = [
            program("flower-superlink"), "--insecure", "--port", str(self.port),
            "--database", str(self.folder / "superlink.db"),
        ]  # fmt: skip
        self.superlink = self._run("superlink", command, self.environment)
        wait_for(lambda: listens(self.port), 90)

    def start_node(self, name: str) -> None:
        """Start a hospital's SuperNode."""
        if name not in self.networks:
            self.networks[name] = self._stack.enter_context(Proxy(self.port))
        home = {"FLWR_HOME": str(self.folder / f"{name}-home")}
        command = [
            program("fedproof"), "supernode", "--insecure",
            "--superlink", f"127.0.0.1:{self.networks[name].port}",
            "--port", str(free_port()), "--node-config", self.configs[name],
        ]  # fmt: skip
        self.nodes[name] = self._run(name, command, self.environment | home)

    def end_by_clock(self, name: str, seconds: float) -> None:
        """Put a silo's clock off; when its SuperNode has ended, mend it and start another."""
        self.clocks[name].jump(seconds)
        self.nodes[name].wait(120)
        self.clocks[name].jump(0)
        self.start_node(name)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End a process and its children without a word."""
        end_tree(process.pid, politely=False)
        process.wait()

    def close(self) -> None:
        """End all."""
        for process in self.nodes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
        self._stack.close()

    def run(self, directory: Path, *told: str) -> subprocess.Popen[str]:
        """Start a run; what it prints is for the caller to read."""
        return subprocess.Popen(
            [program("fedproof"), *NODES, *told, f"hydra.run.dir={directory}"], cwd=ROOT,
            env=self.environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def log(self, name: str) -> str:
        """Return what a process said, of all its lives."""
        paths = sorted(self.folder.glob(f"*-{name}/log"))
        return "".join(path.read_text(errors="replace") for path in paths)

    def at_work(self, name: str) -> bool:
        """Return whether a SuperNode has got a message that it has not answered."""
        said = self.log(name)
        return said.rfind("Received successfully") > said.rfind("Sent successfully")

    def _run(
        self, name: str, command: Sequence[str], environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        self._count += 1
        clock = self.clocks.setdefault(name, Clock(self.folder / f"{name}.clock"))
        environment = environment | clock.environment
        folder = self.folder / f"{self._count:03}-{name}"
        return self._stack.enter_context(running(command, folder, environment))


@contextmanager
def four_hospitals(folder: Path) -> Iterator[Federation]:
    """Start all of it; ended by the pids that were started."""
    configs = {
        name: f'{config} min-cohort=4 held-out="seed"' for name, config in silos(folder).items()
    }
    federation = Federation(folder / "flower", configs, free_port())
    try:
        federation.start_superlink()
        for name in configs:
            federation.start_node(name)
        yield federation
    finally:
        federation.close()


def rounds_of(directory: Path) -> list[dict[str, object]]:
    """Return the lines of the rounds that are done."""
    return files.read_lines(directory / files.METRICS)
