"""What a run announces while it runs, to whoever watches.

In the same process a watcher registers itself. In another process (a SuperLink's ServerApp) the
announcements are lines of its log, which Flower streams to the command that submitted the run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Event = dict[str, Any]
Watcher = Callable[[Event], None]

PREFIX = "FEDPROOF-EVENT "
_watchers: list[Watcher] = []


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Let `watcher` see the events of runs in this process."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def watched() -> bool:
    """Tell whether someone in this process watches."""
    return bool(_watchers)


def announce(event: Event, *, log_lines: bool) -> None:
    """Tell the watchers in this process; print a log line for those elsewhere if asked to."""
    for watcher in _watchers:
        watcher(event)
    if log_lines and not _watchers:
        print(PREFIX + json.dumps(event), flush=True)


def complain(sentence: str) -> None:
    """Tell whoever reads this process's errors what went wrong beside the run, which goes on."""
    print(f"fedproof: {sentence}", file=sys.stderr, flush=True)


def parse(line: str) -> Event | None:
    """Return the event in a log line, or None if it holds none."""
    # Only at its start: what comes later may be quoted from somebody else.
    if not line.startswith(PREFIX):
        return None
    try:
        event = json.loads(line.removeprefix(PREFIX))
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
