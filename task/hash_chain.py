"""A file of JSON lines to which is only added: chained by hashes, locked, durable.

Each line holds the hash of the one before, so an edit anywhere shows; a second file, the head,
holds the last hash, so lines cut off at the end show, too. Whoever can rewrite both files can
rewrite history: they are their owner's, and only the owner relies on them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conf.errors import FedproofError
from task.atomic import atomic, make_folder
from task.locks import exclusive

PATIENCE = 30.0
"""Seconds to wait for another process that has the file."""
_FIRST = "0" * 64
_TAIL = 1 << 20
"""Bytes at the end of a file among which its last line is looked for."""
Body = dict[str, Any]
"""What one line says."""


@dataclass(frozen=True)
class Line:
    """The last line of a file: its number, 0 if there is none, its hash, and what it says."""

    number: int
    digest: str
    body: Body


class DamagedChainError(FedproofError):
    """A file that is not what was written; nothing may be done on its account."""


@dataclass(frozen=True)
class Chain:
    """One such file.

    Attributes
    ----------
    path : Path
        Made, with its folder, when the first line is written.
    name : str
        What it is called in sentences.
    command : str
        First words of the command that shows it.
    otherwise : str
        What did not happen if it cannot be written.
    """

    path: Path
    name: str
    command: str
    otherwise: str

    def bodies(self) -> list[Body]:
        """Return what all lines say, checked.

        Raises
        ------
        DamagedChainError
            If the file is torn, edited or cut.
        """
        return [body for body, _ in self._read()]

    def digests(self) -> list[str]:
        """Return the hashes of all lines, checked.

        Raises
        ------
        DamagedChainError
            If the file is torn, edited or cut.
        """
        return [digest for _, digest in self._read()]

    def last(self) -> Line:
        """Return the last line, after a look at nothing else.

        Raises
        ------
        FedproofError
            If the file is damaged at its end, or cannot be read.
        """
        try:
            file = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return self._last(None)
        except OSError as error:
            raise self._unreadable(error) from None
        try:
            return self._last(file)
        finally:
            os.close(file)

    def copy_to(self, path: Path) -> None:
        """Copy the file and its head, durably, while nobody appends; nothing if there is none."""
        if not self.path.exists():
            return
        with self._locked(), self._writing():
            make_folder(path.parent)
            copy = replace(self, path=path)
            for source, target in ((self.path, path), (self.head_path, copy.head_path)):
                if source.exists():
                    with atomic(target) as temporary:
                        temporary.write_bytes(source.read_bytes())

    def append(self, make: Callable[[list[Body]], Body]) -> None:
        """Append, durably, what `make` returns for what all lines say so far.

        No other process appends meanwhile; what `make` raises is raised.

        Raises
        ------
        FedproofError
            If the file is damaged, in use, or cannot be written. Nothing was appended then.
        """
        with self._locked() as file:
            known = self._read()
            body = make([dict(body) for body, _ in known])
            self._add(file, body, len(known), known[-1][1] if known else _FIRST)

    def add(self, make: Callable[[Body], Body]) -> None:
        """Append what `make` returns for the last line only: files that grow long take no longer.

        Raises
        ------
        FedproofError
            As `append`.
        """
        with self._locked() as file:
            last = self._last(file)
            self._add(file, make(last.body), last.number, last.digest)

    def repair(self) -> int:
        """Cut off a last line that was not written to its end; return how many bytes that were.

        Nothing was done on its account, for that waits until a line is on the disk.
        """
        with self._locked() as file:
            content = self.path.read_bytes()
            whole = content.rfind(b"\n") + 1
            os.ftruncate(file, whole)
            os.fsync(file)
            return len(content) - whole

    def damaged(self, how: str) -> DamagedChainError:
        """Return what is raised for a file that was edited."""
        return DamagedChainError(f"{self.name} was edited ({how}): put back the file as it was.")

    def _add(self, file: int, body: Body, count: int, last: str) -> None:
        # If the last writer ended before this: a file is never two lines beyond its head.
        self._point_at(count, last)
        whole = {**body, "number": count + 1, "before": last}
        digest = _digest(whole)
        self._write(file, json.dumps({**whole, "hash": digest}, sort_keys=True).encode() + b"\n")
        self._point_at(count + 1, digest)

    @property
    def head_path(self) -> Path:
        """The file that says where this one ends."""
        return self.path.with_name(self.path.name + ".head")

    def _point_at(self, number: int, digest: str) -> None:
        """Write the head, unless it says so already."""
        told = f"{number} {digest}\n"
        if number == 0 or (self.head_path.exists() and self.head_path.read_text("ascii") == told):
            return
        with self._writing(), atomic(self.head_path) as temporary:
            temporary.write_text(told, encoding="ascii")

    @contextmanager
    def _locked(self) -> Iterator[int]:
        with ExitStack() as stack:
            try:
                with self._writing():
                    file = stack.enter_context(exclusive(self.path, PATIENCE))
            except TimeoutError:
                raise FedproofError(
                    f"{self.name} is in use by another process: wait for it to end."
                ) from None
            yield file

    def _write(self, file: int, line: bytes) -> None:
        size = os.fstat(file).st_size
        try:
            with self._writing():
                written = os.write(file, line)
                if written < len(line):
                    raise OSError(28, "No space left on device")
                os.fsync(file)
        except FedproofError:
            os.ftruncate(file, size)
            raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise
        except OSError as error:
            raise FedproofError(
                f"{self.name} cannot be written ({error.strerror}): {self.otherwise}."
            ) from None

    def _read(self) -> list[tuple[Body, str]]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise self._unreadable(error) from None
        self._require_whole(content)
        found: list[tuple[Body, str]] = []
        last = _FIRST
        for number, line in enumerate(content.splitlines(), 1):
            body, last = self._parse(line, number, last)
            found.append((body, last))
        self._check_head([digest for _, digest in found])
        return found

    def _unreadable(self, error: OSError) -> FedproofError:
        return FedproofError(f"{self.name} cannot be read ({error.strerror}).")

    def _last(self, file: int | None) -> Line:
        """Return the last line, checked against the head."""
        content = b""
        if file is not None:
            size = os.fstat(file).st_size
            content = os.pread(file, _TAIL, max(0, size - _TAIL))
        self._require_whole(content)
        number, digest = self._told()
        if not content:
            if number:
                raise self.damaged("it does not end as its head says")
            return Line(0, _FIRST, {})
        try:
            body = json.loads(content[:-1].rpartition(b"\n")[2])
            last, before, count = str(body.pop("hash")), body["before"], int(body["number"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self.damaged("its last line is not what was written") from None
        follows = count == number + 1 and before == (digest or _FIRST)
        if last != _digest(body) or not (follows or (count, last) == (number, digest)):
            raise self.damaged("it does not end as its head says")
        return Line(count, last, body)

    def _require_whole(self, content: bytes) -> None:
        if content and not content.endswith(b"\n"):
            raise DamagedChainError(
                f"{self.name} ends in a torn line: look at it with '{self.command} PATH', "
                f"and cut it off with '{self.command} PATH --repair'."
            )

    def _parse(self, line: bytes, number: int, last: str) -> tuple[Body, str]:
        try:
            body = json.loads(line)
            digest = body.pop("hash")
            good = body["number"] == number and body["before"] == last and digest == _digest(body)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            good = False
        if not good:
            raise self.damaged(f"line {number} is not what was written")
        return body, digest

    def _told(self) -> tuple[int, str]:
        """Return number and hash of the last line, as the head says."""
        try:
            number, digest = self.head_path.read_text(encoding="ascii").split()
            return int(number), digest
        except FileNotFoundError:
            return 0, ""
        except (OSError, ValueError):
            raise self.damaged("its head cannot be read") from None

    def _check_head(self, digests: Sequence[str]) -> None:
        """Refuse a file that is shorter, or another one, than its head says.

        It may be one line longer, if its writer ended between the two.
        """
        count, digest = self._told()
        cut = len(digests) < count or (count and digests[count - 1] != digest)
        if cut or len(digests) > count + 1:
            raise self.damaged("it does not end as its head says")


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
