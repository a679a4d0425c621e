"""The process that workers fork from, which imports torch once for all of them."""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

_PRELOADED = ["client_app.cohort", "server_app.compat"]


def start() -> ForkServerContext:
    """Start it, unless it runs, and return the context for its children.

    It imports on its own; called early, it does so while this process imports, too.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    forkserver.ensure_running()
    return context
