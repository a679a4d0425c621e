"""Tables of users: read from disk, and turned into features that all clients agree on.

No client sees another's rows. Each describes its columns (`describe_columns`: categories, sums,
whether values are missing), the server merges the descriptions (`agree_columns`), and every client
encodes its rows by the result (`encode`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conf.errors import FedproofError
from task.base import Json, merge_moments, moments

if TYPE_CHECKING:
    import pandas

SUFFIXES = (".csv", ".csv.gz", ".parquet")
MAX_CATEGORIES = 200
"""A column with more distinct values than this is an identifier or free text, not a category."""


def read_table(path: Path) -> pandas.DataFrame:
    """Read one CSV or Parquet file; empty CSV cells and ``NA`` are missing values.

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
            table = pandas.read_parquet(path)
        else:
            # Otherwise a column's type could depend on where pandas cuts a large file.
            table = pandas.read_csv(path, low_memory=False)
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

    if not path.is_dir():
        return read_table(path), None
    files = sorted(f for f in path.iterdir() if f.name.lower().endswith(SUFFIXES))
    if not files:
        raise FedproofError(f"the folder {path} has no file ending in {', '.join(SUFFIXES)}.")
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


def spell(values: pandas.Series[Any]) -> list[str | None]:
    """Write values as text, the same whether a client's file made them integers or floats."""
    return [
        None if missing else _spell(value)
        for value, missing in zip(values.tolist(), values.isna().tolist(), strict=True)
    ]


def _spell(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def is_numeric(values: pandas.Series[Any]) -> bool:
    """Tell whether a column holds numbers, missing values aside; booleans are categories."""
    from pandas.api.types import infer_dtype

    return infer_dtype(values, skipna=True) in {
        "integer", "floating", "mixed-integer-float", "decimal", "integer-na",
    }  # fmt: skip


def numbers(values: pandas.Series[Any]) -> NDArray[np.float64]:
    """Return a numeric column as floats, NaN where missing.

    Raises
    ------
    FedproofError
        If it holds anything but finite numbers.
    """
    import pandas

    try:
        result = pandas.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError):
        raise FedproofError(
            f"column '{values.name}' must hold numbers, as at the other clients: mend the values."
        ) from None
    if np.isinf(result).any():
        raise FedproofError(
            f"column '{values.name}' has infinite values: leave them empty or replace them."
        )
    return cast(NDArray[np.float64], result)


def describe_columns(
    table: pandas.DataFrame, features: Sequence[str], categorical: Sequence[str], sums: bool
) -> Json:
    """Describe one client's feature columns: what it tells the server about them.

    Parameters
    ----------
    table : DataFrame
        The client's training rows.
    features : sequence of str
        Columns to describe.
    categorical : sequence of str
        Columns whose numbers are codes.
    sums : bool
        Whether to tell count, sum and sum of squares of numeric columns.

    Returns
    -------
    dict
        For each column its ``kind`` (``numeric``, ``category``, or ``empty`` if nothing but
        missing values), whether values are ``missing``, and the ``moments`` or the ``values``;
        of more than `MAX_CATEGORIES` values none is told.
    """
    return {name: _describe(table[name], name in categorical, sums) for name in features}


def _describe(values: pandas.Series[Any], is_category: bool, sums: bool) -> Json:
    missing = bool(values.isna().any())
    present = values[values.notna()]
    if present.empty:
        return {"kind": "empty", "missing": missing}
    if is_category or not is_numeric(present):
        seen = sorted({str(text) for text in spell(present)})
        told = seen if len(seen) <= MAX_CATEGORIES else None
        return {"kind": "category", "missing": missing, "values": told}
    told_sums = sums_of(numbers(present)) if sums else None
    return {"kind": "numeric", "missing": missing, "moments": told_sums}


def sums_of(values: NDArray[np.float64]) -> Json:
    """Return count, sum and sum of squares of one column."""
    return moments(torch.from_numpy(values)[:, None])


def agree_columns(descriptions: Sequence[Mapping[str, Json]]) -> list[Json]:
    """Merge the clients' descriptions of their columns.

    Returns
    -------
    list of dict
        By name: ``name``, ``missing`` (somewhere), and ``mean`` and ``std`` (None if not told) of
        a numeric column or the sorted ``values`` of a category. Columns that are empty at every
        client are left out.

    Raises
    ------
    FedproofError
        If columns differ between clients, or one has too many categories.
    """
    names = set().union(*descriptions)
    differing = sorted(n for n in names if any(n not in d for d in descriptions))
    if differing:
        raise FedproofError(
            f"the clients differ in their columns: not all have {quoted(differing)}; give all the "
            "same columns, or name the others in task.drop."
        )
    agreed = (_agree(name, [d[name] for d in descriptions]) for name in sorted(names))
    return [column for column in agreed if column is not None]


def _agree(name: str, told: Sequence[Json]) -> Json | None:
    kinds = {column["kind"] for column in told} - {"empty"}
    if not kinds:
        return None
    if len(kinds) > 1:
        raise FedproofError(
            f"column '{name}' holds numbers at some clients and text at others: name it in "
            "task.categorical or task.drop."
        )
    agreed: Json = {"name": name, "missing": any(column["missing"] for column in told)}
    full = [column for column in told if column["kind"] != "empty"]
    if kinds == {"numeric"}:
        return agreed | merged([column["moments"] for column in full])
    values = {value for column in full for value in column["values"] or ()}
    if len(values) > MAX_CATEGORIES or any(column["values"] is None for column in full):
        raise FedproofError(
            f"column '{name}' has more than {MAX_CATEGORIES} categories: name it in task.drop, or "
            "group its values."
        )
    return agreed | {"values": sorted(values)}


def merged(told: Sequence[Json | None]) -> Json:
    """Return ``mean`` and ``std`` of one column over all clients; None where sums are not told."""
    known = [sums for sums in told if sums is not None and sums["count"]]
    if not known:
        return {"mean": None, "std": None}
    facts = merge_moments(known)
    return {"mean": facts["mean"][0], "std": facts["std"][0]}


def localize(columns: Sequence[Json], train: pandas.DataFrame) -> list[Json]:
    """Replace the numeric columns' statistics by those of one client's training rows."""

    def own(column: Json) -> Json:
        values = numbers(train[str(column["name"])])
        return column | merged([sums_of(values[~np.isnan(values)])])

    return [column if "values" in column else own(column) for column in columns]


def width(columns: Sequence[Json]) -> int:
    """Return how many features `encode` makes."""
    return sum(len(c.get("values", (0,))) + int(c["missing"]) for c in columns)


def encode(table: pandas.DataFrame, columns: Sequence[Json], standardize: bool) -> Tensor:
    """Turn rows into features.

    A numeric column becomes one feature, with the mean in place of missing values; a category
    becomes one feature per agreed value, all zero for others. A column that is missing somewhere
    in the federation adds a feature that is 1 where it is missing.

    Returns
    -------
    Tensor of float32, shape (n, width(columns))
    """
    blocks: list[NDArray[np.float64]] = [np.empty((len(table), 0))]
    for column in columns:
        values = table[str(column["name"])]
        if "values" in column:
            blocks.append(_one_hot(values, column["values"]))
        else:
            blocks.append(_fill(numbers(values), column, standardize)[:, None])
        if column["missing"]:
            blocks.append(values.isna().to_numpy().astype(np.float64)[:, None])
    return torch.from_numpy(np.concatenate(blocks, axis=1).astype(np.float32))


def _one_hot(values: pandas.Series[Any], categories: Sequence[str]) -> NDArray[np.float64]:
    place = {category: i for i, category in enumerate(categories)}
    index = np.array([place.get(str(text), len(place)) for text in spell(values)], dtype=np.int64)
    return np.eye(len(place) + 1)[index, :-1]


def _fill(values: NDArray[np.float64], column: Json, standardize: bool) -> NDArray[np.float64]:
    mean = column["mean"] or 0.0
    filled = np.where(np.isnan(values), mean, values)
    return (filled - mean) / (column["std"] or 1.0) if standardize else filled
