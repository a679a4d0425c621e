"""Answer a message, or refuse it: a refusal is an answer, too. Either is in the audit log first."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from flwr.app import Context, Message, RecordDict

from client_app.gate import Gate, facts_of, noted, round_of
from client_app.site import Site, audit_of, site_of
from conf.errors import FedproofError
from task.audit import ANSWERED, Receipt
from task.parcel import is_parcel, wrap
from task.rules import RefusedError
from task.wire import Cohort, WireError

log = logging.getLogger(__name__)
_SENDER = ("run-submitter", "run-app", "run-app-hash")
Answer = Callable[[Site, Cohort], Cohort]


def reply(message: Message, context: Context, answer: Answer) -> Message:
    """Check the message, answer it, and put this node's digests into the header.

    Why it was refused, if it was, is in the header as well; what the server has no need to know
    of that stays in the audit log and this node's log.
    """
    receipt = _receipt(message, context)
    try:
        content = _answered(message, context, answer, receipt)
        receipt.decision = ANSWERED
    except RefusedError as error:
        content = _refusal(receipt, str(error), error.told)
    except (FedproofError, WireError) as error:
        content = _refusal(receipt, str(error), str(error))
    except Exception as error:
        # The text of an unforeseen error may quote data: it stays here.
        log.exception("a message was not answered")
        told = f"{type(error).__name__}: see this node's log."
        content = _refusal(receipt, told, told)
    return _reply(message, _logged(receipt, context, content))


def refuse(message: Message, context: Context, reason: str) -> Message:
    """Refuse a message that nobody here can answer."""
    receipt = _receipt(message, context)
    content = _refusal(receipt, reason, "this node does not know such messages.")
    return _reply(message, _logged(receipt, context, content))


def _reply(message: Message, content: RecordDict) -> Message:
    """Return an answer the way that the message came."""
    return Message(wrap(content) if is_parcel(message.content) else content, reply_to=message)


def _answered(message: Message, context: Context, answer: Answer, receipt: Receipt) -> RecordDict:
    site = site_of(context)
    cohort = Cohort.unpack(message.content)
    receipt.run, receipt.round = round_of(cohort)
    site.check(cohort.header)
    gate = Gate(site, audit_of(context.node_config))
    gate.admit(receipt, cohort)
    with noted(receipt.rows):
        result = gate.passed(receipt, answer(site, cohort))
    receipt.errors = dict(result.errors)
    content = replace(result, header={**result.header, **site.digests}).pack()
    gate.release(content)
    return content


def _refusal(receipt: Receipt, reason: str, told: str) -> RecordDict:
    log.warning("refused: %s", reason)
    receipt.reason = reason
    return Cohort(header={"refused": told}).pack()


def _receipt(message: Message, context: Context) -> Receipt:
    known: dict[str, Any] = {
        key: context.node_config[key] for key in _SENDER if key in context.node_config
    }
    return Receipt(
        time=round(time.time(), 3),
        message=message.metadata.message_type,
        sender={"run-id": str(context.run_id), **known},
    )


def _logged(receipt: Receipt, context: Context, content: RecordDict) -> RecordDict:
    """Write down what is about to leave; return what may, which is nothing if that failed."""
    audit = audit_of(context.node_config)
    if audit is None:
        return content
    try:
        receipt.left = facts_of(content)
        audit.write(receipt)
    except FedproofError as error:
        log.error("%s", error)
        return Cohort(header={"refused": "this silo's audit log cannot be written."}).pack()
    return content


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
