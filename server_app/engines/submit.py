"""Submit a run to a SuperLink with Flower's own command, and follow it to its end."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from conf.digest import PACKAGES
from conf.errors import FedproofError
from server_app.engines.superlink import Link, end_tree, prepared, program
from server_app.evidence.events import Watcher, parse

_STARTED = re.compile(r"Successfully started run (\d+)")
_KEPT, _TAIL = 60, 8
_WAITING = """
import sys
import flwr.cli.app
sys.stdin.read()
"""
"""Imports what ``flwr`` needs, and waits for the end of its input, while the SuperLink starts."""
_GONE = "Connection to the SuperLink is unavailable"


def submit(
    link: Link,
    app_dir: Path,
    overrides: str,
    federation_config: Sequence[str],
    watcher: Watcher,
) -> None:
    """Run the application on a SuperLink until the run ends; stop the run if interrupted.

    Parameters
    ----------
    link : Link
        Which SuperLink, and the environment to call ``flwr`` with.
    app_dir : Path
        The application, with its ``pyproject.toml``.
    overrides : str
        The run config's one key.
    federation_config : sequence of str
        ``key=value`` for a simulation; empty for SuperNodes.
    watcher : callable
        Sees the run's events.

    Raises
    ------
    FedproofError
        If the SuperLink cannot be reached, or the run did not complete.
    """
    if not (app_dir / "pyproject.toml").is_file():
        raise FedproofError(
            f"{app_dir} has no pyproject.toml: federation=flower and remote submit the "
            "application's source, so run fedproof from a checkout."
        )
    with tempfile.TemporaryDirectory(prefix="fedproof-") as folder:
        config = Path(folder) / "run.toml"
        # A JSON string is a TOML string too.
        config.write_text(f"overrides = {json.dumps(overrides)}\n", encoding="utf-8")
        app = _staged(app_dir, Path(folder))
        command = [
            *prepared(_WAITING, program("flwr")),
            "run", str(app), link.connection, "--stream", "--run-config", str(config),
        ]  # fmt: skip
        if federation_config:
            command += ["--federation-config", " ".join(federation_config)]
        _follow(link, command, watcher)


def _staged(app_dir: Path, folder: Path) -> Path:
    """Copy the application alone: Flower looks at every file beside it, environments included."""
    staged = folder / "app"
    staged.mkdir()
    for name in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(app_dir / name, staged / name, ignore=ignore)
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy2(app_dir / name, staged / name)
    return staged


def _follow(link: Link, command: Sequence[str], watcher: Watcher) -> None:
    run_id, sentence, finished, kept = "", "", False, list[str]()
    with _child(command, link) as child:
        try:
            link.ready()
            assert child.stdin is not None
            child.stdin.close()
            for line in _lines(child):
                if match := _STARTED.search(line):
                    run_id = match[1]
                event = parse(line)
                if event is None:
                    kept = [*kept[1 - _KEPT :], line]
                elif event["event"] == "error":
                    sentence = str(event["sentence"])
                else:
                    watcher(event)
                    finished = event["event"] == "summary"
        except KeyboardInterrupt:
            if run_id:
                _flwr(link, "stop", run_id, link.connection)
            raise
    if not run_id:
        raise FedproofError(f"cannot submit to SuperLink '{link.connection}': {_reason(kept)}")
    if sentence:
        raise FedproofError(sentence)
    if not finished and any(_GONE in line for line in kept[-_TAIL:]):
        raise FedproofError(
            f"SuperLink '{link.connection}' went away during run {run_id}: start it again, then "
            "resume the run."
        )
    # The summary is the last that a run announces; to ask for its status takes 3 s.
    if not finished and (status := _status(link, run_id)) != "finished:completed":
        tail = "\n".join(kept)
        raise FedproofError(f"run {run_id} ended as {status}; its last log lines were:\n{tail}")


@contextmanager
def _child(command: Sequence[str], link: Link) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        command, env=dict(link.environment), text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        yield child
        child.wait()
    finally:
        end_tree(child.pid)


def _lines(child: subprocess.Popen[str]) -> Iterator[str]:
    assert child.stdout is not None
    for line in child.stdout:
        yield line.rstrip("\n")


def _status(link: Link, run_id: str) -> str:
    answer = _flwr(link, "ls", link.connection, "--run-id", run_id, "--format", "json")
    try:
        return str(json.loads(answer)["runs"][0]["status"])
    except (ValueError, KeyError, IndexError):
        return "unknown"


def _flwr(link: Link, *arguments: str) -> str:
    done = subprocess.run(
        [program("flwr"), *arguments], env=dict(link.environment), text=True, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
    )  # fmt: skip
    return done.stdout


def _reason(lines: Sequence[str]) -> str:
    """Return what ``flwr`` complained about, without its frames and colours."""
    plain = (re.sub(r"\x1b\[[0-9;]*m", "", line).strip(" │╭╰╮╯─\t") for line in lines)
    words = " ".join(text for text in plain if text and text != "Error")
    return words[-400:] or "no message"
