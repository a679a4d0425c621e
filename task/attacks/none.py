"""All clients are honest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def build(options: Mapping[str, Any]) -> None:
    """Return nothing: there is no attack."""
