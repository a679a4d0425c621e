"""What clients are asked besides training and evaluation, and what they answer to that."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from flwr.app import ConfigRecord, RecordDict

from task.layouts import Layout
from task.wire import WireError, config


def layouts(answers: Mapping[str, RecordDict | str]) -> list[Layout]:
    """Return what answers say that they hide, of those that say it."""
    found = []
    for answer in answers.values():
        with suppress(WireError):
            if not isinstance(answer, str):
                found.append(Layout.unpack(config(answer, "layout")))
    return found


SECURE = "query.secure"
"""Flower's type of such messages."""
Parts = dict[str, RecordDict]
"""What each client is told or answers."""


def answered(answers: Mapping[str, RecordDict | str], client: str, what: str) -> ConfigRecord:
    """Return what a client answered to one request.

    Raises
    ------
    WireError
        If it did not, or refused.
    """
    answer = answers.get(client, "it was not asked")
    if isinstance(answer, str):
        raise WireError(answer)
    told = config(answer, what)
    if "refused" in told:
        raise WireError(str(told["refused"]))
    return told
