"""The process that workers fork from, which imports torch once for all of them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

_PRELOADED = ["client_app.cohort", "server_app.compat"]


def start() -> ForkServerContext:
    """Start it, unless it runs, and return the context for its children.

    It imports on its own; called early, it does so while this process imports, too.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    with _safe_path():
        forkserver.ensure_running()
    return context


@contextmanager
def _safe_path() -> Iterator[None]:
    """Keep the working directory off the module path of a process that is started inside.

    Else a user's own ``task.py`` there, as in Flower's templates, would be imported for ours.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        del os.environ["PYTHONSAFEPATH"]
        if before is not None:
            os.environ["PYTHONSAFEPATH"] = before
