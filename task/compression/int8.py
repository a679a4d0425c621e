"""Eight bits per value, rounded up or down at random so that the mean is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from task.compression._blocks import Blocks
from task.options import whole


def build(options: Mapping[str, Any]) -> Blocks:
    """Build from ``block``."""
    return Blocks(8, whole(options, "compression.block", 1))
