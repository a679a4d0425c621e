"""Check options that a choice's YAML file declares, such as ``partition.alpha``.

`conf.compose` has given them the types of their defaults; what is left is null, the type where that
is the default, the range, and what only the choice itself knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from conf.errors import FedproofError

INFINITY = float("inf")


def real(
    options: Mapping[str, Any],
    where: str,
    *,
    positive: bool = False,
    below: float = INFINITY,
    most: float | None = None,
) -> float:
    """Return the option ``group.name``, a number from 0 on.

    Parameters
    ----------
    options : mapping
        Of the group.
    where : str
        ``group.name``.
    positive : bool
        Whether zero is refused, too.
    below, most : float
        It must be less than the one, or no more than the other.

    Raises
    ------
    FedproofError
        If it is null, outside, or no number.
    """
    value = _number(options, where, Real, "a number")
    # All comparisons are false for NaN.
    inside = value is not None and (value > 0 if positive else value >= 0)
    if not (inside and (value < below if most is None else value <= most)):
        left, right = "(" if positive else "[", ")" if most is None else "]"
        limits = f"lie in {left}0, {below if most is None else most:g}{right}"
        if most is None and below == INFINITY:
            limits = f"be {'positive' if positive else 'at least 0'} and finite"
        raise FedproofError(f"{where} must {limits}, got {value}.")
    return float(value)


def whole(options: Mapping[str, Any], where: str, least: int) -> int:
    """Return the option ``group.name``, a whole number of at least `least`.

    Raises
    ------
    FedproofError
        If it is null, less, or no whole number.
    """
    value = _number(options, where, Integral, "a whole number")
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


def _number(options: Mapping[str, Any], where: str, kind: type, name: str) -> Any:
    """Return an option that may be null; where null is the default, its type is not known."""
    value = _option(options, where)
    if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
        raise FedproofError(f"{where} must be {name}, got {value!r}.")
    return value


def _option(options: Mapping[str, Any], where: str) -> Any:
    return options.get(where.partition(".")[2])
