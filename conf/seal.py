"""Marks by which a file of a run shows that it is what was written: no bit of it has changed."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

from conf.errors import FedproofError

SEAL, LINE_SEAL = "sha256", "crc32"
"""Names of the marks, in a JSON file and in a line of one."""


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a JSON file with their digest beside them."""
    return {**values, SEAL: _digest(values)}


def unsealed(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the values of a JSON file without their digest, which must be theirs.

    Raises
    ------
    FedproofError
        If it is not: the file `name` is damaged. A file without one was written before there were
        any, and is taken as it is.
    """
    rest = dict(values)
    if SEAL in rest and rest.pop(SEAL) != _digest(rest):
        raise FedproofError(f"{name} is damaged: it is not what was written; use another run.")
    return rest


def sealed_line(values: Mapping[str, Any]) -> str:
    """Return a line of JSON with its checksum."""
    return json.dumps({**values, LINE_SEAL: _checksum(values)})


def unsealed_line(line: str) -> dict[str, Any]:
    """Return what a line of JSON says.

    Raises
    ------
    ValueError
        If it is none, or its checksum is of something else.
    """
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError(line)
    if LINE_SEAL in values and values.pop(LINE_SEAL) != _checksum(values):
        raise ValueError(line)
    return values


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _checksum(values: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())
