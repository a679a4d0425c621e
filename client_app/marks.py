"""High-water marks: what a silo's rows were asked for, by run, so that nothing is answered twice.

Who answers a round twice, or for two purposes, lets a server take differences: of sums that differ
by one client, or of noise that is averaged away. And who counts only what was answered lets
failures be asked for without end.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from client_app.request import Kind
from task.atomic import atomic
from task.refusals import Refusal, RefusalError

_Marks = dict[str, dict[str, list[int]]]
"""By kind of message and client: the last round, and how many requests there were."""


class Marks:
    """The marks of one data source in one run; a file that one process has at a time.

    Parameters
    ----------
    folder : Path
        Of the data source.
    run : str
        Flower's id.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self._path = folder / f"{run}.json"

    def asked(self, kind: Kind, clients: Sequence[str]) -> int:
        """Return how often one of these clients was asked for its rows: most of any of them.

        Raises
        ------
        RefusalError
            If the file is damaged.
        """
        known = self._read().get(kind, {})
        return max((known[client][1] for client in clients if client in known), default=0)

    def advance(self, kind: Kind, clients: Sequence[str], number: int, *, once: bool) -> None:
        """Write down, durably, that clients are asked for a round; their rows may be read then.

        Parameters
        ----------
        kind : Kind
            Of message.
        clients : sequence of str
            Whose rows will be read.
        number : int
            The round.
        once : bool
            Whether that must be a later round than any before.

        Raises
        ------
        RefusalError
            If it is not, or the file is damaged or cannot be written.
        """
        with self._locked():
            marks = self._read()
            known = marks.setdefault(kind, {})
            for client in clients:
                last, count = known.get(client, [0, 0])
                if once and number <= last:
                    raise RefusalError(
                        Refusal.repeated,
                        f"client '{client}' has answered round {last} ({kind}), and is asked for "
                        f"round {number}: a round is answered once, in order.",
                    )
                known[client] = [max(last, number), count + 1]
            self._write(marks)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unusable(error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _read(self) -> _Marks:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return {
                str(kind): {str(c): [int(last), int(count)] for c, (last, count) in known.items()}
                for kind, known in found.items()
            }
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise _unusable(error) from None
        except (ValueError, TypeError, AttributeError):
            raise RefusalError(
                Refusal.records,
                f"{self._path} is damaged: what this run asked for is not known; start another.",
            ) from None

    def _write(self, marks: _Marks) -> None:
        try:
            with atomic(self._path) as temporary:
                temporary.write_text(json.dumps(marks), encoding="utf-8")
        except OSError as error:
            raise _unusable(error) from None


def _unusable(error: OSError) -> RefusalError:
    return RefusalError(
        Refusal.records,
        f"what this run asked for cannot be written down ({error.strerror}): nothing is answered.",
    )
