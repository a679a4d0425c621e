"""Several models in one record: the names of each one's arrays have its number in front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def numbered(model: Mapping[str, T], number: int) -> dict[str, T]:
    """Return a model's arrays under the names that they have among others."""
    return {f"{number}/{key}": value for key, value in model.items()}


def joined(models: Sequence[Mapping[str, T]]) -> dict[str, T]:
    """Return several models' arrays as one mapping."""
    return {k: v for i, model in enumerate(models) for k, v in numbered(model, i).items()}


def apart(arrays: Mapping[str, T]) -> dict[int, dict[str, T]]:
    """Return each model's arrays by its number; the only one without a number is number 0."""
    models: dict[int, dict[str, T]] = {}
    for key, value in arrays.items():
        number, mark, name = key.partition("/")
        if mark and number.isdecimal():
            models.setdefault(int(number), {})[name] = value
        else:
            models.setdefault(0, {})[key] = value
    return models or {0: {}}
