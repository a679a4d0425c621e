"""Tables of users, read from disk."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.errors import FedproofError

if TYPE_CHECKING:
    import pandas

SUFFIXES = (".csv", ".csv.gz", ".parquet")


def is_table(path: Path) -> bool:
    """Return whether a path is named as a table is, or is a folder that holds some."""
    files = path.iterdir() if path.is_dir() else [path]
    return any(file.name.lower().endswith(SUFFIXES) for file in files)


def read_table(path: Path, rows: int | None = None) -> pandas.DataFrame:
    """Read one CSV or Parquet file, or its first rows; empty CSV cells and ``NA`` are missing.

    Raises
    ------
    FedproofError
        If the file is absent, neither CSV nor Parquet, unreadable, or has no rows.
    """
    import pandas

    if not path.is_file():
        raise FedproofError(f"there is no file {path}: check the path of the data.")
    if not path.name.lower().endswith(SUFFIXES):
        raise FedproofError(f"{path} is not a table: give a file ending in {', '.join(SUFFIXES)}.")
    try:
        if path.name.lower().endswith(".parquet"):
            table = pandas.read_parquet(path)[:rows]
        else:
            # Otherwise a column's type could depend on where pandas cuts a large file.
            table = pandas.read_csv(path, low_memory=False, nrows=rows)
    except (ValueError, OSError, EOFError) as error:
        # Only the kind of error: its text may quote rows.
        raise FedproofError(
            f"cannot read {path} ({type(error).__name__}): it must be UTF-8 CSV with a header, or "
            "Parquet."
        ) from None
    if table.empty:
        raise FedproofError(f"{path} has no rows: give a table with a header and data.")
    table.columns = table.columns.map(str)
    return table


def read_tables(path: Path) -> tuple[pandas.DataFrame, list[str] | None]:
    """Read a file, or a folder with one file per client.

    Returns
    -------
    DataFrame
        All rows.
    list of str or None
        For a folder the client of each row, which is its file's name without suffixes.

    Raises
    ------
    FedproofError
        If something cannot be read, or the files of a folder differ in columns.
    """
    import pandas

    files = files_of(path)
    if not path.is_dir():
        return read_table(path), None
    tables = [read_table(file) for file in files]
    for file, table in zip(files, tables, strict=True):
        differing = sorted(set(table.columns) ^ set(tables[0].columns))
        if differing:
            raise FedproofError(
                f"{file} and {files[0].name} differ in the columns {quoted(differing)}: give all "
                "clients the same columns."
            )
    names = [file.name.partition(".")[0] for file in files]
    if len(set(names)) < len(names):
        raise FedproofError(f"two files in {path} name the same client: rename one of them.")
    rows = [name for name, table in zip(names, tables, strict=True) for _ in range(len(table))]
    return pandas.concat(tables, ignore_index=True), rows


def files_of(path: Path) -> list[Path]:
    """Return a file, or the tables of a folder by name; hidden ones, such as ``._a.csv``, are none.

    Raises
    ------
    FedproofError
        If the folder has no table.
    """
    if not path.is_dir():
        return [path]
    files = sorted(path.iterdir())
    found = [f for f in files if f.name.lower().endswith(SUFFIXES) and f.name[0] != "."]
    if not found:
        raise FedproofError(f"the folder {path} has no file ending in {', '.join(SUFFIXES)}.")
    return found


def column_names(path: Path) -> list[str]:
    """Return the columns of a file, or of the first file of a folder, without reading rows.

    Raises
    ------
    FedproofError
        If there is no table.
    """
    import pandas
    import pyarrow.parquet

    path = files_of(path)[0]
    try:
        if path.name.lower().endswith(".parquet"):
            return [str(name) for name in pyarrow.parquet.read_schema(path).names]
        return [str(name) for name in pandas.read_csv(path, nrows=0).columns]
    except (ValueError, OSError, EOFError) as error:
        raise FedproofError(
            f"cannot read the columns of {path} ({type(error).__name__}): give CSV or Parquet."
        ) from None


def require(table: pandas.DataFrame, columns: Iterable[str], path: Path) -> None:
    """Refuse a table without one of `columns`, naming those that are spelled like it."""
    for column in columns:
        if column not in table.columns:
            names = list(table.columns)
            close = difflib.get_close_matches(column, names, 3)
            mend = f"did you mean {quoted(close)}?" if close else f"it has {quoted(names)}."
            raise FedproofError(f"{path} has no column '{column}': {mend}")


def quoted(names: Sequence[str], most: int = 8) -> str:
    """Return the names in quotes, cut off after `most`."""
    more = ", ..." if len(names) > most else ""
    return ", ".join(f"'{name}'" for name in names[:most]) + more


def is_numeric(values: pandas.Series[Any]) -> bool:
    """Tell whether a column holds numbers, missing values aside; booleans are categories."""
    from pandas.api.types import infer_dtype

    return infer_dtype(values, skipna=True) in {
        "integer", "floating", "mixed-integer-float", "decimal", "integer-na",
    }  # fmt: skip
