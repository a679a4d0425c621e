"""Answer a message, or refuse it: a refusal is an answer, too."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from flwr.app import Context, Message

from client_app.site import Site, site_of
from conf.errors import FedproofError
from task.wire import Cohort, WireError

log = logging.getLogger(__name__)


def reply(message: Message, context: Context, answer: Callable[[Site, Cohort], Cohort]) -> Message:
    """Check the message, answer it, and put this node's digests into the header.

    Why it was refused, if it was, is in the header as well.
    """
    try:
        site = site_of(context)
        cohort = Cohort.unpack(message.content)
        site.check(cohort.header)
        result = answer(site, cohort)
        told = replace(result, header={**result.header, **site.digests})
    except (FedproofError, WireError) as error:
        log.warning("refused: %s", error)
        told = Cohort(header={"refused": str(error)})
    return Message(told.pack(), reply_to=message)


@contextmanager
def excused(errors: dict[str, str], client: str) -> Iterator[None]:
    """Note why a client failed, and go on without it."""
    try:
        yield
    except (FedproofError, WireError) as error:
        errors[client] = str(error)
    except Exception as error:
        # The text of an unforeseen error may quote data: it stays in this node's log.
        log.exception("client %s failed", client)
        errors[client] = f"{type(error).__name__}: see the log of the client's node."
