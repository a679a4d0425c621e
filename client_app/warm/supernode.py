"""``fedproof supernode``: a SuperNode that answers with this installation's own code, and soon.

Flower's own ``flower-supernode`` unpacks the application that came with the run and starts a
process of it for each message: whoever submits a run brings the code, and torch is imported each
time. Here the silo's own installation answers, whatever came along; its processes fork from one
that has imported everything; and the SuperNode asks its SuperLink more often while a run goes on.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from client_app.warm.worker import Worker
from conf.errors import FedproofError
from conf.flower import hasten, require_tested
from task.ports import free_port

if TYPE_CHECKING:
    from client_app.warm.inbox import Inbox
    from client_app.warm.runtime import Assignments

log = logging.getLogger("flwr")
SHORTEST = 0.1
"""Seconds between two questions to the SuperLink while messages come."""
SHARE = 0.05
"""Of the time since the last message, the pause before the next question; at most Flower's."""
DEARLY = 4
"""A pause is as many times as long as the question before it: a SuperLink that has much to do takes
long to answer, and is asked less."""
_OWN = 0.01, 0.1
"""The shortest and the longest pause before a question that stays within this process."""
_BUSY = 1.0
"""Flower's pauses while a message is being answered are shorter than this, the others longer."""
HEARTBEAT = 10
"""Seconds within which the SuperLink may expect a sign of life, Flower's least; its own are 30.
After twice that the SuperLink answers for a node that nothing is heard of, and nobody waits."""
_OURS = ("--isolation", "--superexec-auth-secret-file", "--ssl-certfile")


class Pauses:
    """What Flower's loop takes for the module ``time``: pauses as long as nothing happened lately.

    Flower asks its SuperLink every 3 s whether there is a message, and itself every 0.5 s whether
    it is answered.
    """

    def __init__(self) -> None:
        self._last = self._taken = self._woke = time.monotonic()
        self._busy = False

    def sleep(self, seconds: float) -> None:
        """Sleep for `seconds`, or less."""
        now, busy = time.monotonic(), seconds < _BUSY
        if busy and not self._busy:
            self._taken = now
        # What follows an answer is its way to the SuperLink, and says nothing of that.
        took = 0.0 if busy or self._busy else now - self._woke
        self._busy = busy
        if busy:
            self._last = now
            shortest, longest = _OWN
            pause = min(longest, max(shortest, SHARE * (now - self._taken)))
        else:
            pause = max(SHORTEST, SHARE * (now - self._last), DEARLY * took)
        time.sleep(min(seconds, pause))
        self._woke = time.monotonic()


def main(arguments: Sequence[str]) -> None:
    """Run a SuperNode; takes the options of ``flower-supernode``.

    Raises
    ------
    FedproofError
        If an option is one that this command sets, or Flower is not the one it was made for.
    """
    require_tested("fedproof supernode", "flower-supernode")
    parser = argparse.ArgumentParser(
        prog="fedproof supernode", description=main.__doc__, add_help=False, allow_abbrev=False
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=None)
    told, rest = parser.parse_known_args(arguments)
    for option in rest:
        if option.partition("=")[0] in _OURS:
            raise FedproofError(
                f"{option} cannot be given to `fedproof supernode`, which talks to its own "
                "processes: leave it out, or use flower-supernode."
            )
    _check_data(rest)
    # What this and its processes write (state, ledgers, logs) is the operator's alone.
    os.umask(0o077)
    _keep_quiet()
    port = told.port or free_port()
    with tempfile.TemporaryDirectory(prefix="fedproof-") as folder:
        secret = secrets.token_hex(32).encode()
        path = Path(folder) / "secret"
        path.touch(0o600)
        path.write_bytes(secret)
        options = ["--host", told.host, "--port", str(port), "--isolation", "process"]
        from client_app.warm.inbox import Inbox

        inbox = Inbox()
        _serve_from_a_thread(f"{told.host}:{port}", secret, inbox)
        _flower([*rest, *options, "--superexec-auth-secret-file", str(path)], inbox)


def _check_data(options: Sequence[str]) -> None:
    """Look at the silo's own table before the node is anybody's to ask.

    Raises
    ------
    FedproofError
        If it has no header, or columns that say whose row each is.
    """
    from flwr.common.config import parse_config_args

    from task.privacy.policy import Policy
    from task.table_checks import check_own_table

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--node-config", default="")
    told = parser.parse_known_args(options)[0].node_config
    try:
        config = parse_config_args([told])
    except ValueError:
        return  # Flower says so itself.
    if "data" not in config:
        return
    found = check_own_table(Path(str(config["data"])).expanduser(), Policy.of(config))
    if found:
        log.warning(
            "%s: other values in nearly every row; plain runs tell the server all of them unless "
            "they name such columns in task.drop", ", ".join(found)
        )  # fmt: skip


def _flower(arguments: Sequence[str], inbox: Inbox) -> None:
    """Run Flower's own command in this process, which it ends."""
    loop = importlib.import_module("flwr.supernode.start_client_internal")
    loop.time = Pauses()  # type: ignore[attr-defined]
    inbox.watch(loop)
    hasten(loop.__name__)
    for user in ("flwr.supercore.heartbeat", "flwr.supernode.fleet_http_connection"):
        importlib.import_module(user).HEARTBEAT_DEFAULT_INTERVAL = HEARTBEAT  # type: ignore[attr-defined]
    command = importlib.import_module("flwr.supernode.cli.flower_supernode")
    sys.argv = ["flower-supernode", *arguments]
    command.flower_supernode()


def _serve_from_a_thread(address: str, secret: bytes, inbox: Inbox) -> None:
    # Imported before there are two threads, which may wait for each other's imports for good.
    from client_app.warm.runtime import Assignments

    worker = Worker(address)
    worker.warm_up()
    told = (worker, Assignments(address, secret), inbox)
    threading.Thread(target=_serve_or_end, args=told, daemon=True).start()


def _serve_or_end(worker: Worker, assignments: Assignments, inbox: Inbox) -> None:
    """Serve; a SuperNode that takes messages which nobody answers had better end."""
    try:
        _serve(worker, assignments, inbox)
    except BaseException:
        log.exception("messages cannot be answered any more: this SuperNode ends")
        os.kill(os.getpid(), signal.SIGTERM)


def _serve(worker: Worker, assignments: Assignments, inbox: Inbox) -> None:
    """Hand this SuperNode's messages to the worker, one after the other, as they come."""
    import httpx

    while True:
        inbox.arrived.wait()
        inbox.arrived.clear()
        try:
            assigned = assignments.next()
        except httpx.HTTPError as error:
            log.warning("the SuperNode did not hand out a message: %s", error)
            inbox.arrived.set()
            time.sleep(SHORTEST)
            continue
        if assigned is not None and not worker.answer(assigned.run, assigned.token):
            inbox.crashed(assigned.run)


def _keep_quiet() -> None:
    """Keep Flower from calling home; what is set already stays."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
