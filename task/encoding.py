"""Columns of clients' tables, turned into features that all clients agree on.

No client sees another's rows. Each describes its columns (`describe_columns`: categories, sums,
whether values are missing), the server merges the descriptions (`agree_columns`), and every client
encodes its rows by the result (`encode`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conf.errors import FedproofError
from task.base import Json, merge_moments, moments
from task.declared import category_codes, cell_numbers
from task.tables import is_numeric, quoted

if TYPE_CHECKING:
    import pandas

MAX_CATEGORIES = 200
"""A column with more distinct values than this is an identifier or free text, not a category."""


def spell(values: pandas.Series[Any]) -> list[str | None]:
    """Write values as text, the same whether a client's file made them integers or floats."""
    return [
        None if missing else _spell(value)
        for value, missing in zip(values.tolist(), values.isna().tolist(), strict=True)
    ]


def _spell(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def numbers(values: pandas.Series[Any]) -> NDArray[np.float64]:
    """Return a numeric column as floats, NaN where missing.

    Raises
    ------
    FedproofError
        If it holds anything but finite numbers.
    """
    import pandas

    try:
        result = pandas.to_numeric(values).to_numpy(np.float64, copy=True, na_value=np.nan)
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
        values = _numbers_of(train[str(column["name"])], column)
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
            blocks.append(_one_hot(values, column))
            missing = values.isna().to_numpy()
        else:
            found = _numbers_of(values, column)
            blocks.append(_fill(found, column, standardize)[:, None])
            missing = np.isnan(found)
        if column["missing"]:
            blocks.append(missing.astype(np.float64)[:, None])
    return torch.from_numpy(np.concatenate(blocks, axis=1).astype(np.float32))


def _numbers_of(values: pandas.Series[Any], column: Json) -> NDArray[np.float64]:
    return cell_numbers(values) if column.get("declared") else numbers(values)


def _one_hot(values: pandas.Series[Any], column: Json) -> NDArray[np.float64]:
    categories: Sequence[str] = column["values"]
    if column.get("declared"):
        # Position -1 is the last column, as the position of others is below.
        return np.eye(len(categories) + 1)[category_codes(values, categories), :-1]
    place = {category: i for i, category in enumerate(categories)}
    index = np.array([place.get(str(text), len(place)) for text in spell(values)], dtype=np.int64)
    return np.eye(len(place) + 1)[index, :-1]


def _fill(values: NDArray[np.float64], column: Json, standardize: bool) -> NDArray[np.float64]:
    mean = column["mean"] or 0.0
    filled = np.where(np.isnan(values), mean, values)
    return (filled - mean) / (column["std"] or 1.0) if standardize else filled
