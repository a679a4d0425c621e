"""Updates no longer than they may be (Sun et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from server_app.defences.base import Defence, Stack
from task.options import real
from task.robust.clipping import clip_norms


class NormClip(Defence):
    """Shortens long updates to a fixed norm, or to the median norm of the round."""

    def __init__(self, limit: float | None) -> None:
        self._limit = limit

    def apply(self, stack: Stack, number: int) -> tuple[Stack, dict[str, list[int]]]:
        """Clip."""
        updates, clipped = clip_norms(stack.updates, self._limit)
        rows = clipped.nonzero().flatten().tolist()
        return replace(stack, updates=updates), {"clipped": stack.within(rows)}


def build(options: Mapping[str, Any], seed: int) -> Defence:
    """Build from ``limit``."""
    limit = options["limit"]
    return NormClip(None if limit is None else real(options, "defence.limit", positive=True))
