"""The secrets of one client in one run: a file of its own that only one process has at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client_app.secure.revealed import RevealedSums
from conf.errors import FedproofError
from task.atomic import atomic


@dataclass(frozen=True)
class Place:
    """Where the clients of a node keep what they must not forget of a run.

    Attributes
    ----------
    folder : Path
        Of all runs.
    run : str
        Flower's id of this one.
    settings : str
        Digest of its settings.
    """

    folder: Path
    run: str
    settings: str

    def bind(self) -> None:
        """Note the run's settings, or refuse others than those that were noted.

        Else a server could name a silo's rows otherwise (``task.client``) for a second sum of a
        round.

        Raises
        ------
        FedproofError
            If the run had other settings before, or nothing can be written.
        """
        path = self.folder / self.run / "settings"
        try:
            if not path.exists():
                _write_once(path, self.settings)
            first = path.read_text(encoding="ascii")
        except OSError as error:
            raise FedproofError(
                f"the settings of a run with secure sums cannot be noted ({error.strerror}): no "
                "client takes part."
            ) from None
        if first != self.settings:
            raise FedproofError(
                "the server changed the settings of a run that has begun: nothing is sent."
            )

    def opened(self, client: str) -> AbstractContextManager[dict[str, Any]]:
        """Yield what a client keeps secret in this run, as `opened` does."""
        return opened(self.folder, self.run, client)

    def revealed(self, client: str) -> RevealedSums:
        """Return of which models a client helped to open sums."""
        return RevealedSums(self.folder, self.settings, client)


@contextmanager
def opened(folder: Path, run: str, client: str) -> Iterator[dict[str, Any]]:
    """Yield what a client keeps secret in a run, to be changed; it is on the disk afterwards.

    Also after an error: what was asked once counts as asked.

    Parameters
    ----------
    folder : Path
        Where this node keeps such files.
    run : str
        Flower's id of the run.
    client : str
        Whose secrets they are.

    Raises
    ------
    FedproofError
        If the file is damaged or cannot be written.
    """
    path = folder / run / hashlib.sha256(client.encode()).hexdigest()[:40]
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unusable(client, error) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        secrets = _read(path, client)
        before = json.dumps(secrets)
        try:
            yield secrets
        finally:
            # What is on the disk need not be written again, which takes longer than all else.
            if (after := json.dumps(secrets)) != before:
                _write(path, client, after)
    finally:
        os.close(lock)


def is_ahead(secrets: Mapping[str, Any], part: str, number: int) -> bool:
    """Return whether a round comes after all in which a client did a part before.

    Parameters
    ----------
    secrets : mapping
        From `opened`.
    part : str
        What it does: rounds are counted for each by itself.
    number : int
        Of the round, from 1.
    """
    return number > int(secrets.get("done", {}).get(part, 0))


def first_time(secrets: dict[str, Any], part: str, number: int) -> bool:
    """Note that a client does a part in a round; return whether it `is_ahead`."""
    if not is_ahead(secrets, part, number):
        return False
    secrets.setdefault("done", {})[part] = number
    return True


def _write_once(path: Path, text: str) -> None:
    """Write a new file, unless another process was first: who finds it finds all of it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    partial.write_text(text, encoding="ascii")
    try:
        os.link(partial, path)
    except FileExistsError:
        pass
    finally:
        partial.unlink()


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


def _write(path: Path, client: str, secrets: str) -> None:
    try:
        with atomic(path) as temporary:
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(file, "w", encoding="ascii") as stream:
                stream.write(secrets)
    except OSError as error:
        raise _unusable(client, error) from None


def _unusable(client: str, error: OSError) -> FedproofError:
    return FedproofError(
        f"the secrets of client '{client}' cannot be written ({error.strerror}): it takes no part."
    )
