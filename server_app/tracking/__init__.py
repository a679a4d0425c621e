"""Where a run's figures also go: one file for each tracker, its package imported when it is used.

A tracker watches from the `fedproof` command, so it works wherever the ServerApp runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

from conf.errors import FedproofError
from conf.schema import Settings
from server_app.evidence.events import Event, Watcher, complain
from server_app.evidence.tensorboard import scalars
from task.registry import find

T = TypeVar("T")


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
    name = settings.tracking.name
    module = find("server_app.tracking", name)
    excused = _Excused(name)
    tracker: Tracker | None = excused.call(lambda: module.build(settings, run_dir))
    if tracker is None:
        yield watcher
        return

    def both(event: Event) -> None:
        watcher(event)
        if event["event"] == "round":
            figures = scalars({k: v for k, v in event.items() if k != "event"})
            excused.call(lambda: tracker.round(event["round"], figures))
        elif event["event"] == "summary":
            figures = scalars({"held_out": event["held_out"]})
            excused.call(lambda: tracker.summary(figures))

    finished = False
    try:
        yield both
        finished = True
    finally:
        excused.call(lambda: tracker.close(finished=finished))


class _Excused:
    """Lets a tracker fail once, with a word, and then no more: the run goes on without it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._failed = False

    def call(self, work: Callable[[], T]) -> T | None:
        """Return what some work of the tracker returns; None if it failed, or did before."""
        if self._failed:
            return None
        try:
            return work()
        except FedproofError:
            raise
        except Exception as error:
            self._failed = True
            reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            complain(f"tracking={self._name} failed ({reason}): the run goes on without it.")
            return None


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
