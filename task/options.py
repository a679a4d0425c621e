"""Check options that a choice's YAML file declares, such as ``partition.alpha``.

`conf.compose` has given them their types; what is left is null, the range, and what only the
choice itself knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from conf.errors import FedproofError

INFINITY = float("inf")


def real(
    options: Mapping[str, Any], where: str, *, positive: bool = False, below: float = INFINITY
) -> float:
    """Return the option ``group.name``, a number from 0 up to but not including `below`.

    Raises
    ------
    FedproofError
        If it is null or outside; with `positive`, if it is zero.
    """
    value = _option(options, where)
    # Both comparisons are false for NaN.
    if value is None or not (value > 0 if positive else value >= 0) or not value < below:
        bounds = f"{'(' if positive else '['}0, {below:g})"
        limits = bounds if below < INFINITY else "positive" if positive else "at least 0"
        kind = f"lie in {limits}" if below < INFINITY else f"be {limits} and finite"
        raise FedproofError(f"{where} must {kind}, got {value}.")
    return float(value)


def whole(options: Mapping[str, Any], where: str, least: int) -> int:
    """Return the option ``group.name``, a whole number of at least `least`.

    Raises
    ------
    FedproofError
        If it is null or less.
    """
    value = _option(options, where)
    if value is None or value < least:
        raise FedproofError(f"{where} must be at least {least}, got {value}.")
    return int(value)


def choice(options: Mapping[str, Any], where: str, allowed: Iterable[str]) -> str:
    """Return the option ``group.name``, one of `allowed`.

    Raises
    ------
    FedproofError
        If it is none of them.
    """
    value = _option(options, where)
    if value not in allowed:
        raise FedproofError(f"{where} must be one of {', '.join(allowed)}, got {value}.")
    return str(value)


def _option(options: Mapping[str, Any], where: str) -> Any:
    return options.get(where.partition(".")[2])
