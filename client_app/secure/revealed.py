"""Of which models a client helped to open sums, and over whom: two cohorts of one model differ.

The difference of two sums of the same model, over cohorts that differ by one client, is that
client's answer. So a client that has revealed shares for a model does so again only for the same
cohort, in whichever run: what this keeps outlives runs, because a resumed one has an id of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flwr.app import ConfigRecord

from conf.errors import FedproofError
from task.atomic import make_folder, sync_folder
from task.identity import bound
from task.secure.kinds import Kind


@dataclass(frozen=True)
class Question:
    """The message whose answer is to be hidden.

    Attributes
    ----------
    kind : Kind
        Of the message.
    number : int
        Of its round, from 1.
    model : bytes
        Digest of the model that it sent.
    exchange : ConfigRecord
        What it says of how the answer is to be hidden.
    """

    kind: Kind
    number: int
    model: bytes
    exchange: ConfigRecord


class RevealedSums:
    """What one client remembers, a line for each model.

    Parameters
    ----------
    folder : Path
        Of this node's secrets.
    settings : str
        Digest of the run's settings: others make other answers of the same model.
    client : str
        Whose memory it is.
    """

    def __init__(self, folder: Path, settings: str, client: str) -> None:
        name = hashlib.sha256(bound(client, settings)).hexdigest()[:40]
        self._path = folder / "revealed" / name
        self._client = client

    def require_same(self, kind: Kind, model: bytes, cohort: bytes) -> None:
        """Refuse a model of which a sum over another cohort was opened.

        Parameters
        ----------
        kind : Kind
            What is summed.
        model : bytes
            Digest of the model.
        cohort : bytes
            Digest of the clients whose vectors the sum is to hold.

        Raises
        ------
        FedproofError
            Then, or if the memory cannot be read.
        """
        if self._path.exists():
            with self._locked() as file:
                self._find(file, kind, model, cohort)

    def note(self, kind: Kind, model: bytes, cohort: bytes) -> None:
        """Remember, durably, that a sum is about to be opened, unless `require_same` refuses it.

        Raises
        ------
        FedproofError
            As `require_same`, or if nothing can be written.
        """
        with self._locked() as file:
            if self._find(file, kind, model, cohort):
                return
            os.write(file, f"{kind} {model.hex()} {cohort.hex()}\n".encode("ascii"))
            os.fsync(file)

    def _find(self, file: int, kind: Kind, model: bytes, cohort: bytes) -> bool:
        """Return whether the sum over this very cohort was opened before; refuse another."""
        size = os.fstat(file).st_size
        known = f"{kind} {model.hex()} "
        lines = os.pread(file, size, 0).decode("ascii", "replace").splitlines()
        found = {line.removeprefix(known) for line in lines if line.startswith(known)}
        if found - {cohort.hex()}:
            raise FedproofError(
                f"client '{self._client}' has helped to open a sum of this very model over "
                f"another cohort ({kind}), and the difference of two could show a client: it "
                "sends nothing; train on with the same clients, or start a run with another seed."
            )
        return bool(found)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            make_folder(self._path.parent)
            new = not self._path.exists()
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            if new:
                sync_folder(self._path.parent)
        except OSError as error:
            raise FedproofError(
                f"what client '{self._client}' remembers of secure sums cannot be written "
                f"({error.strerror}): it takes no part."
            ) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)
