"""One model for all clients."""

from __future__ import annotations

from conf.schema import Settings


def build(settings: Settings) -> None:
    """Return nothing: there is nothing to do."""
