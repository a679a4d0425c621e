"""The server sees each client's answer."""

from __future__ import annotations

from conf.schema import Settings


def build(settings: Settings) -> None:
    """Return nothing."""
