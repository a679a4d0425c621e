"""Where a run's figures also go: one file for each tracker, its package imported when it is used.

A tracker watches from the `fedproof` command, so it works wherever the ServerApp runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from conf.errors import FedproofError
from conf.schema import Settings
from server_app.evidence.events import Event, Watcher
from server_app.evidence.tensorboard import scalars
from task.registry import find


class Tracker(Protocol):
    """Takes a run's figures."""

    def round(self, number: int, values: Mapping[str, float]) -> None:
        """Take the figures of a round."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Take the figures of the model that the run ended with."""

    def close(self, *, finished: bool) -> None:
        """End, whether the run finished or not."""


@contextmanager
def tracked(settings: Settings, run_dir: Path, watcher: Watcher) -> Iterator[Watcher]:
    """Yield a watcher that also feeds the tracker that the settings name.

    Raises
    ------
    FedproofError
        If the tracker's package is not installed.
    """
    module = find("server_app.tracking", settings.tracking.name)
    tracker: Tracker | None = module.build(settings, run_dir)
    if tracker is None:
        yield watcher
        return

    def both(event: Event) -> None:
        watcher(event)
        if event["event"] == "round":
            tracker.round(event["round"], scalars({k: v for k, v in event.items() if k != "event"}))
        elif event["event"] == "summary":
            tracker.summary(scalars({"held_out": event["held_out"]}))

    finished = False
    try:
        yield both
        finished = True
    finally:
        tracker.close(finished=finished)


def package(name: str) -> Any:
    """Import the package of the optional extra of the same name.

    Raises
    ------
    FedproofError
        If it is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        raise FedproofError(
            f"tracking={name} needs the package {name}: uv run --extra {name} fedproof ..."
        ) from None
