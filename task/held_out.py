"""Which rows of a silo are held out: a keyed hash of each row decides, whatever a run asks for.

A run's seed and settings are the server's to choose. Were held-out rows drawn by them, two runs
would evaluate, in the clear, rows that a third one trains on with privacy. Here each row is held
out if a pseudorandom function of its content, keyed with the silo's own secret, falls below the
held-out fraction: the same in every run and every task, and no row changes sides because another
one came or went.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.atomic import sync_folder

if TYPE_CHECKING:
    import pandas

    from task.base import Examples

Digests = NDArray[np.uint64]
_DOMAIN = 0x46656450726F6F66
"""Second half of every block: the key's other uses never meet these blocks."""
_MISSING = "\0missing"
"""What an empty cell counts as; no cell of a text file holds a NUL."""


def keyed_held_out(digests: Digests, fraction: float, key: bytes) -> NDArray[np.bool_]:
    """Choose held-out rows by a keyed hash: each row by itself, with probability `fraction`.

    Parameters
    ----------
    digests : ndarray of uint64, shape (n,)
        Of the rows' contents (`example_digests`, `table_digests`); equal rows fall on one side.
    fraction : float
        Share of rows to hold out; of two fractions the larger holds out all rows of the smaller.
    key : bytes, 32 of them
        The silo's secret.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    blocks = np.empty((len(digests), 2), dtype="<u8")
    blocks[:, 0], blocks[:, 1] = digests, _DOMAIN
    # A block cipher is a pseudorandom permutation of distinct blocks, which is all that is needed.
    encrypt = Cipher(AES(key), ECB()).encryptor()
    words = np.frombuffer(encrypt.update(blocks.tobytes()), dtype="<u8")[::2]
    uniform = np.ldexp((words >> np.uint64(11)).astype(np.float64), -53)
    return np.asarray(uniform < fraction)


def split_key(secret: bytes) -> bytes:
    """Return the key of a silo's split, from the secret that it keeps for several purposes."""
    return hashlib.blake2b(b"held-out rows", key=secret, digest_size=32).digest()


def pin_split(path: Path, rule: str) -> None:
    """Note by which rule a data source's rows are held out, once; refuse another one from then on.

    Rows that one private run trained on would be held out, and evaluated, by the next.

    Parameters
    ----------
    path : Path
        Of the note, made when there is none.
    rule : str
        As `task.source.DataSource.split_rule` says.

    Raises
    ------
    FedproofError
        If it was another one before, or cannot be read or kept.
    """
    try:
        if not path.exists():
            with suppress(FileExistsError):
                file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(file, "wb") as stream:
                    stream.write(rule.encode())
                    stream.flush()
                    os.fsync(file)
                sync_folder(path.parent)
        kept = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FedproofError(
            f"{path} cannot be kept ({type(error).__name__}): nothing is trained or evaluated."
        ) from None
    if kept != rule:
        raise FedproofError(
            f"private runs held out this silo's rows by {kept or 'a rule that was not written'}, "
            f"this one by {rule}: rows that were trained on would be evaluated; give the run "
            f"the same, or remove {path} if no such run's model was ever released."
        )


def example_digests(examples: Examples) -> Digests:
    """Return a digest of each example's input and target.

    Returns
    -------
    ndarray of uint64, shape (n,)
    """
    parts = [_row_bytes(tensor.cpu().numpy()) for tensor in (examples.x, examples.y)]
    digests = np.empty(len(examples), dtype=np.uint64)
    for number, (x, y) in enumerate(zip(*parts, strict=True)):
        digest = hashlib.blake2b(x.tobytes() + y.tobytes(), digest_size=8).digest()
        digests[number] = int.from_bytes(digest, "little")
    return digests


def table_digests(table: pandas.DataFrame) -> Digests:
    """Return a digest of each row of a table: of all its columns, whatever a run uses of them.

    A cell counts the same whichever type its column got: one empty cell more turns integers into
    floats, one word more turns a whole column into text, and neither may move other rows. The
    columns' order does not matter.

    Returns
    -------
    ndarray of uint64, shape (n,)
    """
    total = np.zeros(len(table), dtype=np.uint64)
    for name in table.columns:
        cells = _cell_digests(table[name])
        salt = hashlib.blake2b(str(name).encode(), digest_size=8).digest()
        # Mixed with the column's name, so that equal cells of two columns are told apart.
        total += _mixed(cells ^ np.uint64(int.from_bytes(salt, "little")))
    return total


def _row_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return each row's bytes, shape (n, width); equal numbers have equal bytes."""
    rows: NDArray[Any] = values.reshape(len(values), -1)
    if rows.dtype.kind == "f":
        # One zero and one NaN, of the several that floats have.
        rows = np.where(np.isnan(rows), np.nan, rows + 0.0)
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(values), -1)


def _cell_digests(column: pandas.Series[Any]) -> Digests:
    """Return a digest of each cell: of its number where it can be read as one, else of its text."""
    import pandas

    missing = column.isna().to_numpy()
    if pandas.api.types.is_bool_dtype(column.dtype):
        column = column.astype(object)
    is_number = pandas.api.types.is_numeric_dtype(column.dtype)
    text = None if is_number else column.where(~missing, _MISSING).astype(str).str.strip()
    numbers = pandas.to_numeric(column if text is None else text, errors="coerce")
    values = numbers.to_numpy(np.float64, na_value=np.nan) + 0.0
    digests = _mixed(values.view(np.uint64))
    if text is not None:
        others = np.isnan(values) & ~missing
        words = pandas.util.hash_array(text.to_numpy(object)[others], categorize=True)
        digests[others] = words
    digests[missing] = np.uint64(0)
    return digests


def _mixed(words: Digests) -> Digests:
    """Scatter the bits of each word (the finaliser of SplitMix64, Steele et al. 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Digests = words ^ (words >> np.uint64(31))
    return mixed
