"""Whose rows a silo's data are: an id that names, copies, order and growth do not change.

A folder of ledgers holds beside them a secret key, made once; the sketch of each data source; and
an index of which file was found to be which source. A file is the source whose path or inode it
has, or with which it shares one row in a hundred (of the smaller): rather one budget for two
tables than two budgets for one patient. A file that fits several joins them, with all that was
spent.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from conf.errors import FedproofError
from task.atomic import atomic
from task.locks import exclusive
from task.privacy.carried import carry
from task.privacy.fingerprint import COMMON, Fingerprint, files_below, overlap, take_fingerprint
from task.privacy.fingerprint import union as union_of
from task.privacy.source_key import KEY, source_key, write_private, writing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INDEX, LOCK = "sources.json", "sources.lock"
"""Names in a folder of ledgers."""
_BY_NAME = re.compile(r"[0-9A-Za-z_-]{0,40}-[0-9a-f]{12}")
"""Stems of the ledgers that earlier versions kept for each client's name."""
_BY_SOURCE = re.compile(r"[0-9a-f]{32}")
_REMEMBERED = 256
"""Files whose stamps are remembered."""


@dataclass(frozen=True)
class SourceState:
    """Which data a path holds now.

    Attributes
    ----------
    source : str
        Id of the data source: 32 hexadecimal digits.
    number : int
        Of its content among those that the source had: the same rows in the same order have one.
    """

    source: str
    number: int


@dataclass
class _Index:
    """What the index file says.

    Attributes
    ----------
    places : dict
        By source: paths and inodes at which it was seen.
    seen : dict
        By the stamps of files: source and content, so that nothing is read twice.
    contents : dict
        By source: hashes of what it held so far.
    joined : dict
        Sources that turned out to be another one.
    carrying : dict
        By source: ledgers whose entries it still has to take over.
    by_name : list
        Ledgers of earlier versions that were here first; whose rows they were about nobody knows.
    """

    places: dict[str, list[str]] = field(default_factory=dict)
    seen: dict[str, list[str]] = field(default_factory=dict)
    contents: dict[str, list[str]] = field(default_factory=dict)
    joined: dict[str, str] = field(default_factory=dict)
    carrying: dict[str, list[str]] = field(default_factory=dict)
    by_name: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, told: dict[str, Any]) -> Self:
        """Read what a file holds.

        Raises
        ------
        TypeError
            If it is something else.
        """
        found = cls(**told)
        if not all(isinstance(known, dict) for known in (found.places, found.seen, found.contents)):
            raise TypeError
        return found

    def state(self, stamp: str) -> SourceState | None:
        """Return what files with such stamps hold; None if they are new, or no source any more."""
        source, content = self.seen.get(stamp, ("", ""))
        if source not in self.places:
            return None
        return SourceState(source, self.contents[source].index(content) + 1)

    def note(self, stamp: str, source: str, content: str) -> None:
        """Take down what files with such stamps hold."""
        self.seen = {**dict(list(self.seen.items())[1 - _REMEMBERED :]), stamp: [source, content]}
        contents = self.contents.setdefault(source, [])
        if content not in contents:
            contents.append(content)


class SourceIndex:
    """The data sources whose ledgers lie in one folder.

    Parameters
    ----------
    folder : Path
        Made when the first source is looked at.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def secret(self) -> bytes:
        """Key of 256 bits that never leaves the folder; made at first use.

        Raises
        ------
        FedproofError
            If it cannot be kept, others may read it, or it is gone while the index is there.
        """
        return source_key(self._folder, missed=(self._folder / INDEX).exists())

    def find(self, data: Path) -> SourceState:
        """Return which source a path holds, new or known.

        A file is read when it is new or has changed, by its path, size, times and inode.

        Raises
        ------
        FedproofError
            If the data cannot be read, or what the folder holds is not whole.
        """
        with _read_from(data):
            stamp = _stamp_of(data)
        index = self._read()
        known = index.state(stamp)
        if known is not None and known.source not in index.carrying:
            return known
        with self._locked():
            return self._looked_at(data, stamp)

    def knows(self, source: str) -> bool:
        """Tell whether a source is one still, and not joined to another one."""
        index = self._read()
        return source in index.places and source not in index.carrying

    def require_current(self, source: str) -> None:
        """Refuse to go on with a source that was joined to another one meanwhile.

        Raises
        ------
        FedproofError
            Then.
        """
        if not self.knows(source):
            raise FedproofError("this data was found to be part of other data: ask again.")

    def _looked_at(self, data: Path, stamp: str) -> SourceState:
        index = self._read()
        if not (self._folder / INDEX).exists():
            index.by_name = self._ledgers(_BY_NAME)
        self._require_complete(index)
        if index.state(stamp) is None:
            secret = self.secret
            with _read_from(data):
                looked = take_fingerprint(data, secret)
            index.note(stamp, self._matched(index, data, looked), looked.state)
            self._write(index)
        state = index.state(stamp)
        assert state is not None
        self._carry(index, state.source)
        return state

    def _matched(self, index: _Index, data: Path, looked: Fingerprint) -> str:
        """Return the source that data belong to; the index knows it then, and where they lie."""
        here = _places_of(data)
        found = [
            source
            for source, places in index.places.items()
            if not here.isdisjoint(places) or overlap(self._sketch(source), looked.sketch) >= COMMON
        ]
        sketch, new = looked.sketch, not found
        source = found[0] if found else self._id_of(looked)
        for other in found:
            sketch = union_of(sketch, self._sketch(other))
        carrying = list(index.by_name) if new else []
        for other in found[1:]:
            here.update(index.places.pop(other))
            index.joined[other] = source
            carrying += [*index.carrying.pop(other, []), other]
        index.places[source] = sorted(here.union(index.places.get(source, ())))
        if carrying:
            index.carrying[source] = [*index.carrying.get(source, []), *carrying]
        with atomic(self._folder / f"{source}.sketch") as temporary:
            write_private(temporary, sketch.tobytes())
        return source

    def _id_of(self, looked: Fingerprint) -> str:
        return hashlib.blake2b(looked.state.encode(), key=self.secret, digest_size=16).hexdigest()

    def _carry(self, index: _Index, source: str) -> None:
        """Write into a source's ledger what was spent under other names; once, whatever happens."""
        names = index.carrying.get(source)
        if not names:
            return
        for name in names:
            carry(self._folder, name, source, again=name in index.by_name)
        del index.carrying[source]
        self._write(index)

    def _ledgers(self, stem: re.Pattern[str]) -> list[str]:
        names = (path.name.removesuffix(".jsonl") for path in self._folder.glob("*.jsonl"))
        return sorted(name for name in names if stem.fullmatch(name))

    def _require_complete(self, index: _Index) -> None:
        for name in self._ledgers(_BY_SOURCE):
            if name not in index.places and name not in index.joined:
                raise FedproofError(
                    f"the ledger {self._folder / name}.jsonl is of data that {INDEX} beside it "
                    f"does not know: put back {INDEX}, {KEY} and the .sketch files as they were."
                )

    def _sketch(self, source: str) -> NDArray[np.uint64]:
        import numpy as np

        path = self._folder / f"{source}.sketch"
        try:
            return np.frombuffer(path.read_bytes(), np.uint64)
        except (OSError, ValueError):
            raise FedproofError(f"{path} cannot be read: put back the file as it was.") from None

    def _read(self) -> _Index:
        path = self._folder / INDEX
        try:
            return _Index.of(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return _Index()
        except (OSError, ValueError, TypeError):
            raise FedproofError(f"{path} cannot be read: put back the file as it was.") from None

    def _write(self, index: _Index) -> None:
        path = self._folder / INDEX
        with writing(path), atomic(path) as temporary:
            write_private(temporary, json.dumps(asdict(index), sort_keys=False).encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as stack:
            with writing(self._folder / LOCK):
                stack.enter_context(exclusive(self._folder / LOCK))
            yield


def _stamp_of(data: Path) -> str:
    """Return what changes when a file does, or one in a folder."""
    stats = [(path, path.stat()) for path in files_below(data)]
    facts = [
        [str(path), s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns]
        for path, s in stats
    ]
    return hashlib.sha256(json.dumps([str(data.resolve()), facts]).encode()).hexdigest()


def _places_of(data: Path) -> set[str]:
    stats = [path.stat() for path in files_below(data)]
    return {str(data.resolve()), *(f"{stat.st_dev}:{stat.st_ino}" for stat in stats)}


@contextmanager
def _read_from(data: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, zlib.error) as error:
        # Only the kind of error: its text may quote rows.
        raise FedproofError(
            f"the data {data} cannot be read ({type(error).__name__}): check the path of the data."
        ) from None
