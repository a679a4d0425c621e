"""Brain floating point: 8 significant bits, over the range of float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from task.compression._cast import BF16
from task.compression.base import Compressor


def build(options: Mapping[str, Any]) -> Compressor:
    """Return the one that there is."""
    return BF16
