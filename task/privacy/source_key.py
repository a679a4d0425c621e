"""A silo's secret key: 256 bits, made once, kept beside its ledgers and nowhere else."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from conf.errors import FedproofError
from task.atomic import make_folder, sync_folder

KEY = "source.key"
"""Its name in a folder of ledgers."""
_SIZE = 32


def source_key(folder: Path, *, missed: bool) -> bytes:
    """Return the key in a folder; make it if there is none.

    Parameters
    ----------
    folder : Path
        Made if need be.
    missed : bool
        Whether there must be one.

    Raises
    ------
    FedproofError
        If it cannot be kept, is no such key, others may read it, or it is missed.
    """
    path = folder / KEY
    with writing(path):
        if not path.exists():
            if missed:
                raise FedproofError(f"the key {path} is gone: put it back, or no data is known.")
            _make(path)
        if path.stat().st_mode & 0o077:
            raise FedproofError(f"others may read {path}: chmod 600 {path}.")
        key = path.read_bytes()
    if len(key) != _SIZE:
        raise FedproofError(f"{path} is no key of {_SIZE} bytes: put back the file as it was.")
    return key


def _make(path: Path) -> None:
    make_folder(path.parent)
    made = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        write_private(made, secrets.token_bytes(_SIZE))
        # Of several processes that come first together, one makes the key.
        with suppress(FileExistsError):
            os.link(made, path)
    finally:
        made.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_private(path: Path, content: bytes) -> None:
    """Write a file, durably, that nobody else may read."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(file)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one sentence that a file cannot be written."""
    try:
        yield
    except OSError as error:
        raise FedproofError(
            f"{path} cannot be written ({error.strerror}): nothing was released."
        ) from None
