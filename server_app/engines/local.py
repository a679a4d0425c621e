"""Engine ``local``: ServerApp and ClientApp of this application on a Grid in this process.

No SuperLink and no Ray. The one node of the Grid serves all clients; it deals a cohort to worker
processes in pieces, as they become free, or answers itself if there is one worker only.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flwr.app import Context, Message, MessageType, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.object_ref import load_app
from flwr.supercore.run import Run

from conf.schema import Settings
from server_app.compat import adopt_identity, stamp
from server_app.engines.pool import Pool
from server_app.federation.exchange import ExchangeGrid
from task.wire import Cohort

NODE = 1
PIECES_PER_WORKER = 4
"""A cohort is cut into so many pieces per worker: enough to even out clients of unequal size."""


def run_local(settings: Settings, overrides: Sequence[str], app_dir: str) -> None:
    """Run a federation in this process.

    Parameters
    ----------
    settings : Settings
        What `overrides` compose to.
    overrides : sequence of str
        Passed to both apps, as Flower passes a run config.
    app_dir : str
        Directory of the application, as for ``flwr run``.
    """
    run_id = time.time_ns() & (2**62 - 1)
    adopt_identity(run_id)
    run_config: UserConfig = {"overrides": shlex.join(overrides)}
    # This imports torch, as the workers' forkserver does meanwhile.
    server_app = load_app("server_app.app:app", RuntimeError, app_dir)
    assert isinstance(server_app, ServerApp)
    with open_grid(settings, run_id, run_config, app_dir) as grid:
        server_app(grid, Context(run_id, NODE, {}, RecordDict(), run_config))


@contextmanager
def open_grid(
    settings: Settings, run_id: int, run_config: UserConfig, app_dir: str
) -> Iterator[LocalGrid]:
    """Open the Grid, and end its workers whatever happens."""
    context = Context(run_id, NODE, {}, RecordDict(), run_config)
    workers = settings.federation.workers or os.cpu_count() or 1
    if workers == 1:
        yield LocalGrid(InProcess(context, app_dir), context)
        return
    with Pool(workers, context, app_dir) as pool:
        yield LocalGrid(pool, context)


class InProcess:
    """Answers messages in this process, one after the other: nothing can time out."""

    size = 1

    def __init__(self, context: Context, app_dir: str) -> None:
        client_app = load_app("client_app.app:app", RuntimeError, app_dir)
        assert isinstance(client_app, ClientApp)
        self._client_app = client_app
        self._context = context

    def ask(self, messages: Sequence[Message], timeout: float | None) -> list[Message]:
        """Return the answer to each message; `timeout` cannot be kept."""
        return [self._client_app(message, self._context) for message in messages]


class LocalGrid(ExchangeGrid):
    """One node that serves every client.

    Parameters
    ----------
    workers : InProcess or Pool
        Who answers.
    context : Context
        The node's.
    """

    def __init__(self, workers: InProcess | Pool, context: Context) -> None:
        self._workers = workers
        self._run = Run.create_empty(context.run_id)

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        """Return the id of the one node."""
        return [NODE]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Return the answer to each message."""
        return [self._answer(message, timeout) for message in messages]

    def _answer(self, message: Message, timeout: float | None) -> Message:
        if message.metadata.message_type == MessageType.QUERY:
            return self._workers.ask([stamp(message)], timeout)[0]
        pieces = self._cut(message)
        answers = self._workers.ask(pieces, timeout)
        return Message(_join_answers(pieces, answers).pack(), reply_to=message)

    def _cut(self, message: Message) -> list[Message]:
        """Cut a cohort into pieces, enough for the workers to share."""
        if self._workers.size == 1:
            return [stamp(message)]
        cohort = Cohort.unpack(message.content)
        clients = list(cohort.parts)
        count = min(len(clients), self._workers.size * PIECES_PER_WORKER)
        pieces = []
        for i in range(count):
            parts = {client: cohort.parts[client] for client in clients[i::count]}
            content = Cohort(parts, header=cohort.header).pack()
            pieces.append(stamp(Message(content, NODE, message.metadata.message_type)))
        return pieces


def _join_answers(pieces: Sequence[Message], answers: Sequence[Message]) -> Cohort:
    joined: dict[str, RecordDict] = {}
    errors: dict[str, str] = {}
    header: dict[str, Any] = {}
    for piece, answer in zip(pieces, answers, strict=True):
        asked = Cohort.unpack(piece.content).parts
        if answer.has_error():
            errors |= dict.fromkeys(asked, answer.error.reason or "no reason given")
            continue
        cohort = Cohort.unpack(answer.content)
        joined |= cohort.parts
        errors |= cohort.errors
        header |= cohort.header
        if "refused" in cohort.header:
            errors |= dict.fromkeys(asked, str(cohort.header["refused"]))
            header.pop("refused")
    return Cohort(joined, errors, header)
