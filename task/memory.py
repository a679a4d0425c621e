"""Memory that a process has freed, and will want again in the next step."""

from __future__ import annotations

import ctypes
import sys

_TRIM, _MAP = -1, -3
"""The names that glibc's ``malloc.h`` gives these settings: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD."""
_KEPT, _MAPPED = 256 << 20, 32 << 20


def keep_freed() -> None:
    """Let glibc keep up to 256 MiB of freed memory, and map only blocks beyond 32 MiB anew.

    It would give a step's activations back to the operating system, which hands them out again
    page by page, zeroed: 180 pages in a step of LeNet. Peak memory stays the same. Elsewhere
    than on Linux with glibc this does nothing.
    """
    if sys.platform == "linux":
        settings = getattr(ctypes.CDLL(None), "mallopt", None)
        if settings is not None:
            settings(_TRIM, _KEPT)
            settings(_MAP, _MAPPED)
