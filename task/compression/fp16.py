"""IEEE half precision: 11 significant bits, from 6e-8 to 65504."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from task.compression._cast import FP16
from task.compression.base import Compressor


def build(options: Mapping[str, Any]) -> Compressor:
    """Return the one that there is."""
    return FP16
