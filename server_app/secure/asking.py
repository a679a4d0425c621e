"""What clients are asked besides training and evaluation, and what they answer to that."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.app import ConfigRecord, RecordDict

from task.wire import WireError, config

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
