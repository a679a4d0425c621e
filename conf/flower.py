"""Which Flower the few uses of its private parts were tested with, and how it is hastened."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from importlib.metadata import version
from typing import Any

from conf.errors import FedproofError

TESTED = "1.41."
_AGAIN, _LONGEST = 0.05, 1.0
"""Seconds after which parts of a message are asked for again, at first and at most."""


def require_tested(what: str, otherwise: str) -> None:
    """Refuse another version of Flower than what uses its private parts was tested with.

    Parameters
    ----------
    what : str
        What uses them.
    otherwise : str
        What does not, and may be used in its place.

    Raises
    ------
    FedproofError
        Then.
    """
    installed = version("flwr")
    if not installed.startswith(TESTED):
        raise FedproofError(
            f"flwr {installed} is installed, but {what} was tested with {TESTED}x: "
            f"install flwr {TESTED}x or use {otherwise}."
        )


_longest: ContextVar[float | None] = ContextVar("longest", default=None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let messages whose parts do not all arrive within some seconds go, until the block ends."""
    token = _longest.set(seconds)
    try:
        yield
    finally:
        _longest.reset(token)


def hasten(module: str) -> None:
    """Let a module of Flower's ask for parts of a message again sooner than after 1, 2, 4 ... s.

    A message can be seen before all of its parts have arrived. With a version of Flower that this
    was not tested with, nothing changes.
    """
    if not version("flwr").startswith(TESTED):
        return
    found = importlib.import_module(module)
    original = getattr(found, "pull_objects", None)
    if original is None or getattr(original, "__wrapped__", None):
        return

    @wraps(original)
    def sooner(*args: Any, **told: Any) -> Any:
        told |= {"initial_backoff": _AGAIN, "backoff_cap": _LONGEST}
        if (longest := _longest.get()) is not None:
            told |= {"max_time": longest, "max_tries_per_object": None}
        return original(*args, **told)

    found.pull_objects = sooner  # type: ignore[attr-defined]
