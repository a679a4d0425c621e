"""The secrets of one client in one run: a file of its own that only one process has at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conf.errors import FedproofError
from task.atomic import atomic


@contextmanager
def opened(folder: Path, run: str, client: str) -> Iterator[dict[str, Any]]:
    """Yield what a client keeps secret in a run, to be changed; it is on the disk afterwards.

    Also after an error: what was asked once counts as asked.

    Parameters
    ----------
    folder : Path
        Where this node keeps such files.
    run : str
        As the server names it.
    client : str
        Whose secrets they are.

    Raises
    ------
    FedproofError
        If the file is damaged or cannot be written, or the run's name could lead elsewhere.
    """
    if not re.fullmatch(r"[0-9a-z]{1,64}", run):
        raise FedproofError("the server names the run in a way that cannot be a folder.")
    path = folder / run / hashlib.sha256(client.encode()).hexdigest()[:40]
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unusable(client, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        secrets = _read(path, client)
        try:
            yield secrets
        finally:
            _write(path, client, secrets)
    finally:
        os.close(lock)


def first_time(secrets: dict[str, Any], purpose: str, number: int) -> bool:
    """Note that a client does its part in a round; return whether it never did, nor in a later one.

    Parameters
    ----------
    secrets : dict
        From `opened`.
    purpose : str
        Rounds are counted for each by itself.
    number : int
        Of the round, from 1.
    """
    done = secrets.setdefault("done", {})
    if number <= done.get(purpose, 0):
        return False
    done[purpose] = number
    return True


def _read(path: Path, client: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="ascii"))
        assert isinstance(found, dict)
        return found
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AssertionError):
        raise FedproofError(
            f"the secrets of client '{client}' in this run are damaged: it takes no more part in "
            "its secure sums; start another run."
        ) from None


def _write(path: Path, client: str, secrets: dict[str, Any]) -> None:
    try:
        with atomic(path) as temporary:
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(file, "w", encoding="ascii") as stream:
                json.dump(secrets, stream)
    except OSError as error:
        raise _unusable(client, error) from None


def _unusable(client: str, error: OSError) -> FedproofError:
    return FedproofError(
        f"the secrets of client '{client}' cannot be written ({error.strerror}): it takes no part."
    )
