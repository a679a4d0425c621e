"""What tells that two files hold the same rows, whatever their names, order and growth.

Every row is hashed under a secret key, and the smallest hashes are kept: a bottom-k sketch (Cohen
and Kaplan 2007). A hash is kept by its value alone, so copies, other orders and longer versions
of a file keep the same ones, and the share of rows that two files have in common shows. Without the
key nobody can test whether a given row is in it.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KEPT = 4096
"""k: hashes that are kept. A copy is found unless it grew to some four hundred times its rows."""
COMMON = 0.01
"""Share of the smaller file's rows from which on two files count as the same people's."""
_BLOCK = 4096
"""Bytes of a piece of what has no rows, or too long ones."""
_BATCH = 1 << 17
"""Hashes between two looks for the smallest."""
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of the rows of a file, or of a folder's files.

    Attributes
    ----------
    sketch : ndarray of uint64, shape (at most `KEPT`,)
        The smallest hashes of its distinct rows, ascending.
    state : str
        Hash of all its rows in their order: changes whenever the content does.
    """

    sketch: NDArray[np.uint64]
    state: str


def take_fingerprint(data: Path, key: bytes) -> Fingerprint:
    """Read all rows below a path.

    A text's rows are its lines (of a CSV without the first), Parquet's are its records; what is
    gzipped is unpacked first; of anything else each block of 4 KiB counts as a row.

    Parameters
    ----------
    data : Path
        A file, or a folder.
    key : bytes, at most 64
        Secret.

    Raises
    ------
    OSError
        If something cannot be read.
    """
    import numpy as np

    sketch = np.empty(0, np.uint64)
    state = blake2b(key=key, digest_size=16)
    hashes: list[bytes] = []
    for file in files_below(data):
        if file != data:
            state.update(f"\0{file.relative_to(data)}\0".encode())
        for row in _rows(file):
            digest = blake2b(row, digest_size=8, key=key).digest()
            state.update(digest)
            hashes.append(digest)
            if len(hashes) == _BATCH:
                sketch = _smallest(sketch, hashes)
                hashes.clear()
    return Fingerprint(_smallest(sketch, hashes), state.hexdigest())


def files_below(data: Path) -> list[Path]:
    """Return a file, or all files of a folder, sorted."""
    if data.is_dir():
        return sorted(path for path in data.rglob("*") if path.is_file())
    return [data]


def union(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the sketch of the rows of two sketches together."""
    import numpy as np

    return np.union1d(left, right)[:KEPT]


def overlap(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> float:
    """Return which share of the smaller one's distinct rows both have, as estimated.

    Below the least of the hashes at which full sketches end, both hold all hashes of their rows.
    """
    import numpy as np

    ends = [sketch[-1] for sketch in (left, right) if len(sketch) == KEPT]
    if ends:
        left, right = (sketch[sketch <= min(ends)] for sketch in (left, right))
    fewer = min(len(left), len(right))
    return len(np.intersect1d(left, right, assume_unique=True)) / fewer if fewer else 0.0


def _smallest(sketch: NDArray[np.uint64], hashes: list[bytes]) -> NDArray[np.uint64]:
    import numpy as np

    new = np.frombuffer(b"".join(hashes), ">u8").astype(np.uint64)
    return union(sketch, new)


def _rows(file: Path) -> Iterator[bytes]:
    with file.open("rb") as raw:
        start = raw.read(len(_PARQUET))
        raw.seek(0)
        if start == _PARQUET:
            yield from _records(file)
        elif start.startswith(_GZIP):
            with gzip.open(raw) as unpacked:
                yield from _pieces(cast(IO[bytes], unpacked), file)
        else:
            yield from _pieces(raw, file)


def _records(file: Path) -> Iterator[bytes]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file) as table:
        # What pandas adds when rows are filtered or sorted is their old position.
        names = [name for name in table.schema_arrow.names if not name.startswith("__index_level")]
        for batch in table.iter_batches(columns=names):
            for record in batch.to_pylist():
                yield repr(tuple(record.values())).encode()


def _pieces(content: IO[bytes], file: Path) -> Iterator[bytes]:
    text = b"\0" not in content.read(_BLOCK)
    content.seek(0)
    if not text:
        while block := content.read(_BLOCK):
            # Padding is in many files.
            if block.count(block[:1]) < len(block):
                yield block
        return
    if file.name.lower().endswith((".csv", ".csv.gz")):
        content.readline()
    for line in content:
        row = line.strip()
        for start in range(0, len(row), _BLOCK):
            yield row[start : start + _BLOCK]
