"""Files that one process has at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from task.atomic import make_folder


@contextmanager
def exclusive(path: Path, patience: float | None = None) -> Iterator[int]:
    """Open a file for reading and appending that no other process has meanwhile.

    Parameters
    ----------
    path : Path
        Made, with its folder.
    patience : float or None
        Seconds to wait for another process; None: as long as it takes.

    Yields
    ------
    int
        Its file descriptor.

    Raises
    ------
    TimeoutError
        If another process has it for longer.
    OSError
        If it cannot be opened or made.
    """
    make_folder(path.parent)
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        _lock(file, patience)
        yield file
    finally:
        os.close(file)


def _lock(file: int, patience: float | None) -> None:
    if patience is None:
        fcntl.flock(file, fcntl.LOCK_EX)
        return
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError from None
            time.sleep(0.01)
