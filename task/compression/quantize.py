"""One to four bits per value, rounded up or down at random so that the mean is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conf.errors import FedproofError
from task.compression._blocks import Blocks
from task.options import whole

_MOST = 4


def build(options: Mapping[str, Any]) -> Blocks:
    """Build from ``bits`` and ``block``.

    Raises
    ------
    FedproofError
        If they are out of range.
    """
    bits = whole(options, "compression.bits", 1)
    if bits > _MOST:
        raise FedproofError(
            f"compression.bits must be at most {_MOST}, got {bits}: compression=int8 has eight."
        )
    return Blocks(bits, whole(options, "compression.block", 1))
