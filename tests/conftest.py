"""Run federations in this process, on any number of nodes, with any fault."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.supercore.run import Run
from xdist.scheduler.loadfile import LoadFileScheduling

from client_app.app import app as client_app
from conf.compose import compose, quote
from server_app.app import app as server_app
from server_app.compat import adopt_identity, stamp
from server_app.evidence import files
from server_app.federation.exchange import ExchangeGrid

ROOT = Path(__file__).resolve().parent.parent
DEPLOYMENT = "tests/deployment/"
_RUN_IDS = itertools.count(1)
"""As a SuperLink would: no two runs share one, not even a run and the one that resumes it."""
Tamper = Callable[[Message], "Message | list[Message] | None"]


class DeploymentTogether(LoadFileScheduling):
    """A file to a worker, but all deployments to one.

    Each test of those starts up to a dozen processes: two at once would starve each other.
    """

    def _split_scope(self, nodeid: str) -> str:
        return DEPLOYMENT if nodeid.startswith(DEPLOYMENT) else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> DeploymentTogether:
    """Return what gives tests to workers."""
    return DeploymentTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the slow tests first, so that no worker is left with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True, scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what nodes with data of their own write out of the user's home."""
    os.environ["FLWR_HOME"] = str(tmp_path_factory.mktemp("flwr-home"))


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets, which not every machine has."""
    path = Path(os.environ.get("FEDPROOF_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"the real data sets are not at {path} (FEDPROOF_DATA)")
    return path


class NodesGrid(ExchangeGrid):
    """Nodes in this process, each with its own node config; replies may be tampered with."""

    def __init__(
        self,
        run_config: dict[str, Any],
        node_configs: Sequence[dict[str, Any]],
        tamper: Tamper | None,
        run_id: int = 1,
    ) -> None:
        self._run = Run.create_empty(run_id)
        self._contexts = {
            100 + i: Context(run_id, 100 + i, dict(config), RecordDict(), dict(run_config))
            for i, config in enumerate(node_configs)
        }
        self._tamper = tamper
        self._ready: dict[str, list[Message]] = {}
        self.sent: list[Message] = []
        self.answered: list[tuple[Message, Message]] = []

    def set_run(self, run: Run) -> None: ...

    @property
    def run(self) -> Run:
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        replies = []
        for message in messages:
            self.sent.append(message)
            reply = client_app(stamp(message), self._contexts[message.metadata.dst_node_id])
            kept = reply if self._tamper is None else self._tamper(reply)
            for answer in kept if isinstance(kept, list) else [kept]:
                if answer is not None:
                    replies.append(answer)
                    self.answered.append((message, answer))
        return replies

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        for message in messages:
            replies = list(self.send_and_receive([message]))
            self._ready[message.metadata.message_id] = replies
            yield message.metadata.message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [reply for number in message_ids for reply in self._ready.pop(number, [])]


@dataclass(frozen=True)
class Ran:
    """A finished run."""

    directory: Path
    grid: NodesGrid

    @property
    def summary(self) -> dict[str, Any]:
        return files.read_json(self.directory / files.SUMMARY)

    @property
    def run_facts(self) -> dict[str, Any]:
        return files.read_json(self.directory / files.RUN)

    @property
    def rounds(self) -> list[dict[str, Any]]:
        return files.read_lines(self.directory / files.METRICS)

    @property
    def model(self) -> bytes:
        return (self.directory / files.MODEL).read_bytes()


def run_nodes(
    directory: Path,
    *overrides: str,
    nodes: int | Sequence[dict[str, Any]] = 1,
    tamper: Tamper | None = None,
) -> Ran:
    """Run the real ServerApp and ClientApp on nodes in this process."""
    told = [*overrides, f"run_dir={quote(directory)}"]
    compose.cache_clear()
    config = {"overrides": " ".join(f"'{o}'" for o in told)}
    run_id = next(_RUN_IDS)
    adopt_identity(run_id)
    if isinstance(nodes, int):
        nodes = [{"partition-id": i, "num-partitions": nodes} for i in range(nodes)]
    grid = NodesGrid(config, nodes, tamper, run_id)
    server_app(grid, Context(run_id, 1, {}, RecordDict(), config))
    return Ran(directory, grid)


@pytest.fixture
def federate(tmp_path: Path) -> Callable[..., Ran]:
    """Return `run_nodes` with a directory of its own for each run that is not given one."""
    numbers = itertools.count(1)

    def run(*overrides: str, directory: Path | None = None, **options: Any) -> Ran:
        return run_nodes(directory or tmp_path / f"run-{next(numbers)}", *overrides, **options)

    return run


def interrupt(
    run: Callable[..., Ran], directory: Path, *told: str, after: int, **more: Any
) -> None:
    """Run, and interrupt when the first trained answer of the round after so many comes."""

    def cut(reply: Message) -> Message:
        done = len(files.read_lines(directory / files.METRICS))
        if done == after and reply.metadata.message_type == "train":
            raise KeyboardInterrupt
        return reply

    with pytest.raises(KeyboardInterrupt):
        run(*told, tamper=cut, directory=directory, **more)
