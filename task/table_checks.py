"""What is wrong with a silo's table before anybody is told of it: no header, or identifiers in it.

The first line of a file without a header is a row, and its cells would be taken for the columns'
names, which plain runs tell the server. A column that says who each row is would be taken for a
category, whose values they tell, too. Both are found at home: by ``fedproof deploy check``, when a
SuperNode starts, and before a plain run tells anything.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conf.errors import FedproofError
from task import tables

if TYPE_CHECKING:
    import pandas

    from task.privacy.policy import Policy

_DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([T ].*)?|\d{1,2}:\d\d(:\d\d)?")
_MISSING = {"n/a", "nan", "null", "?"}
"""Not "na" or "none": sodium is a column's name."""
SEEN = 1000
"""Rows with which a header is compared."""
FEWEST, SHARE = 10, 0.5
"""A column with more distinct texts than the one, in more than this share of its rows, says whose
row each is: names recur, too."""


def require_header(path: Path) -> None:
    """Refuse a file whose column names are data by themselves; no row is looked at.

    Raises
    ------
    FedproofError
        With a sentence for the silo's operator, which quotes nothing.
    """
    for file in tables.files_of(path):
        cells = _header(file)
        if any(map(_is_value, cells)) or _is_numbered(cells) or _repeats(cells):
            raise _no_header(file)


def require_distinct_header(path: Path) -> None:
    """Refuse a file whose column names look like the values below them, or are data by themselves.

    Raises
    ------
    FedproofError
        As `require_header`.
    """
    require_header(path)
    for file in tables.files_of(path):
        table = tables.read_table(file, SEEN)
        if any(_is_like(str(name), table[name]) for name in table.columns):
            raise _no_header(file)


def check_own_table(data: Path, policy: Policy) -> list[str]:
    """Check a silo's table by its policy alone, before any run asks for it.

    Returns
    -------
    list of str
        Identifiers among the columns that runs may use, where neither noise nor secure sums are
        demanded; a plain run would tell their values.

    Raises
    ------
    FedproofError
        If the table has no header, or, where they are demanded, such an identifier.
    """
    rules = policy.rules
    if not tables.is_table(data) or (rules is not None and "tabular" not in rules.tasks):
        return []
    require_distinct_header(data)
    table, _ = tables.read_tables(data)
    allowed = (rules.columns if rules is not None else ()) or tuple(table.columns)
    if policy.privacy is None and policy.aggregation is None:
        return identifiers(table, allowed)
    require_no_identifiers(table, allowed)
    return []


def identifiers(table: pandas.DataFrame, columns: Iterable[str]) -> list[str]:
    """Return the columns that have another value in (nearly) every row, as names and numbers do.

    Texts, and whole numbers that count the rows; other numbers are never told.
    """
    return [name for name in columns if name in table.columns and _identifies(table[name])]


def require_no_identifiers(table: pandas.DataFrame, columns: Iterable[str]) -> None:
    """Refuse columns that are identifiers.

    Raises
    ------
    FedproofError
        With a sentence for the silo's operator.
    """
    found = identifiers(table, columns)
    if found:
        raise FedproofError(
            f"{tables.quoted(found)} has another value in nearly every row, as identifiers have: "
            "leave it out of `columns` in the policy, and have runs name it in task.drop."
        )


def _header(file: Path) -> list[str]:
    """Return the cells of a file's first line, or the names of Parquet's columns."""
    if file.name.lower().endswith(".parquet"):
        return tables.column_names(file)
    # As it is written: pandas would tell repeated and empty cells apart.
    opened: Any = gzip.open if file.name.lower().endswith(".gz") else open
    try:
        with opened(file, "rt", newline="", encoding="utf-8-sig") as lines:
            return next(csv.reader(lines), [])
    except (OSError, ValueError, EOFError, csv.Error) as error:
        raise FedproofError(
            f"cannot read the columns of {file} ({type(error).__name__}): give CSV or Parquet."
        ) from None


def _no_header(file: Path) -> FedproofError:
    return FedproofError(
        f"{file}: its first line looks like data, not like the columns' names: write a header."
    )


def _is_value(cell: str) -> bool:
    text = cell.strip()
    return bool(_DATE.fullmatch(text)) or text.lower() in _MISSING or "@" in text


def _is_numbered(cells: Sequence[str]) -> bool:
    """Tell whether some names are numbers, other than years or places one after the other."""
    numbers = [number for cell in cells if (number := _number(cell)) is not None]
    follow = all(right - left == 1 for left, right in pairwise(numbers))
    return bool(numbers) and not (len(numbers) > 2 and follow)


def _repeats(cells: Sequence[str]) -> bool:
    """Tell whether names repeat or are empty; only a first column of row labels may have none."""
    named = [cell.strip() for cell in cells]
    return len(set(named)) < len(named) or "" in named[1:]


def _is_like(name: str, values: pandas.Series[Any]) -> bool:
    """Tell whether a name is, or is written like, the values below it.

    Of names that are numbers the whole line has the say (`_is_numbered`).
    """
    if _number(name) is not None:
        return False
    texts = [str(value).strip() for value in values.dropna().tolist()]
    shapes = {_shape(text) for text in texts}
    return name.strip() in texts or (shapes == {_shape(name)} and "9" in _shape(name))


def _shape(text: str) -> str:
    """Return how a text is written: P-0012 as a-9999."""
    return re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "9", text.strip()))


def _identifies(values: pandas.Series[Any]) -> bool:
    present = values[values.notna()]
    distinct = present.nunique()
    if distinct <= FEWEST or distinct <= SHARE * len(present):
        return False
    if not tables.is_numeric(present):
        return True
    steps = np.diff(present.to_numpy(np.float64))
    return bool(distinct == len(present) and (steps == steps[0]).all())


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
