"""A run directory has one owner at a time: the process that runs in it."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

from conf.errors import FedproofError

LOCK = ".lock"
_owned: dict[Path, int] = {}
"""Open locks by directory: held until this process ends, however it ends."""


def own_directory(directory: Path) -> None:
    """Claim a run directory for this process; one that it has already stays its own.

    Parameters
    ----------
    directory : Path
        Made if it does not exist.

    Raises
    ------
    FedproofError
        If another process has it, or it cannot be written.
    """
    place = directory.resolve()
    if place in _owned:
        return
    try:
        place.mkdir(parents=True, exist_ok=True)
        file = os.open(place / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise unwritable(directory, error) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise FedproofError(
            f"another command runs in {directory}: wait for it to end, or give this run a "
            "directory of its own (hydra.run.dir=DIR)."
        ) from None
    _owned[place] = file


def require_writable(directory: Path) -> None:
    """Try whether files can be written below a directory, before anything takes time.

    Raises
    ------
    FedproofError
        If not.
    """
    place = directory
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.NamedTemporaryFile(prefix=".fedproof-", dir=place) as probe:
            probe.write(b"\0")
            probe.flush()
    except OSError as error:
        raise unwritable(directory, error) from None


def unwritable(directory: Path, error: OSError) -> FedproofError:
    """Return what is raised for a directory that cannot be written."""
    return FedproofError(
        f"{directory} cannot be written ({error.strerror or error}): make room there, or choose "
        "another place with hydra.run.dir=DIR."
    )
