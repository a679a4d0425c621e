"""Columns that an experiment declares, so that no client need tell anything of its rows.

``task.columns`` names the features and ``task.categories`` the categories of those that are no
numbers. What a cell means depends on that cell alone: were it to depend on the type that a whole
column gets when it is read, one row more could change what all others mean, and no noise is made
for that. A cell that is none of the declared categories is unknown: all of the column's features
are zero. A cell of a declared number that is no finite number is missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.base import Json

if TYPE_CHECKING:
    import pandas

_LOGICAL = {"true": "True", "false": "False"}


def declared_categories(options: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return ``task.categories``, each category spelled as `spell_cell` spells cells.

    Raises
    ------
    FedproofError
        If a column has fewer than two, the same twice, or no list.
    """
    found: dict[str, list[str]] = {}
    for column, values in dict(options.get("categories") or {}).items():
        if not isinstance(values, list) or not all(
            isinstance(v, str | int | float) for v in values
        ):
            raise FedproofError(
                f"task.categories.{column} must be a list of values, as in [no,yes]."
            )
        spelled = [spell_cell(value) for value in values]
        if len(set(spelled)) < max(2, len(spelled)):
            raise FedproofError(f"task.categories.{column} must name two or more, each once.")
        found[str(column)] = spelled
    return found


def declared_columns(columns: Sequence[str], categories: Mapping[str, Sequence[str]]) -> list[Json]:
    """Return what clients agree on of these columns, by name, as `task.encoding` takes it.

    Whether numbers are missing is a feature of every numeric column: that none is could only be
    known from the rows.
    """

    def column(name: str) -> Json:
        known: Json = {"name": name, "declared": True}
        if name in categories:
            return known | {"missing": False, "values": list(categories[name])}
        return known | {"missing": True, "mean": None, "std": None}

    return [column(name) for name in sorted(columns)]


def spell_cell(value: object) -> str:
    """Write one cell as text, the same whatever type its column was given: 1, 1.0 and "1.0"."""
    text = str(value).strip()
    if text.lower() in _LOGICAL:
        return _LOGICAL[text.lower()]
    number = _number(text)
    if number is None:
        return text
    return str(int(number)) if number.is_integer() else repr(number)


def category_codes(values: pandas.Series[Any], categories: Sequence[str]) -> NDArray[np.int64]:
    """Return each cell's position among the categories, and -1 for others and missing ones.

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    import pandas

    codes, distinct = pandas.factorize(values)
    place = {category: number for number, category in enumerate(categories)}
    # The last one is for missing cells, whose code is -1.
    places = [*(place.get(spell_cell(value), -1) for value in distinct), -1]
    return np.array(places, dtype=np.int64)[codes]


def cell_numbers(values: pandas.Series[Any]) -> NDArray[np.float64]:
    """Return each cell's number, NaN for those that are no finite number; true is 1, false 0.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    import pandas

    codes, distinct = pandas.factorize(values)
    numbers = [*map(_cell_number, distinct), math.nan]
    return np.array(numbers, dtype=np.float64)[codes]


def sorted_classes(values: Sequence[str]) -> list[str]:
    """Return classes in order, by number if all are numbers: the later of two is the positive."""
    numeric = all(_number(value) is not None for value in values)
    return sorted(values, key=float) if numeric else sorted(values)


def _cell_number(value: object) -> float:
    text = _LOGICAL.get(str(value).strip().lower())
    if text is not None:
        return float(text == "True")
    number = _number(str(value).strip())
    return math.nan if number is None else number


def _number(text: str) -> float | None:
    """Return a finite number, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
