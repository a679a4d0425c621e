"""Answer a message, or refuse it: a refusal is an answer, too. Either is in the audit log first."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import Context, Message, RecordDict

from client_app.exit import Answer, leave, refusing
from client_app.gate import Gate, facts_of, noted
from client_app.ledgers import ledger_heads, require_newest
from client_app.request import Request, is_silo, parse
from client_app.site import Site, audit_of, site_of
from conf.errors import FedproofError
from task.audit import ANSWERED, Receipt
from task.parcel import is_parcel, wrap
from task.refusals import Failure, Refusal, RefusalError
from task.wire import WireError

log = logging.getLogger(__name__)
_SENDER = ("run-submitter", "run-app", "run-app-hash")
Handler = Callable[[Site, Request], Answer]


def reply(message: Message, context: Context, answer: Handler) -> Message:
    """Check the message, answer it, and put this node's digests into the header.

    Why it was refused, if it was, is in the header as well: of a silo as a sentence from
    `task.refusals`, whose whole reason is in the audit log and this node's log.
    """
    receipt = _receipt(message, context)
    try:
        content = _answered(message, context, answer, receipt)
        receipt.decision = ANSWERED
    except Exception as error:
        if not isinstance(error, FedproofError | WireError):
            # The text of an unforeseen error may quote data: it stays here.
            log.exception("a message was not answered")
        content = _refusal(receipt, Failure.of(error), context)
    return _reply(message, _logged(receipt, context, content))


def refuse(message: Message, context: Context, reason: str) -> Message:
    """Refuse a message that nobody here can answer."""
    receipt = _receipt(message, context)
    log.warning("refused: %s", reason)
    receipt.reason = reason
    content = refusing(Refusal.kind).pack()
    return _reply(message, _logged(receipt, context, content))


def _reply(message: Message, content: RecordDict) -> Message:
    """Return an answer the way that the message came."""
    return Message(wrap(content) if is_parcel(message.content) else content, reply_to=message)


def _answered(message: Message, context: Context, answer: Handler, receipt: Receipt) -> RecordDict:
    request = parse(message, context)
    receipt.run, receipt.round = request.run, request.number or None
    site = _site(context)
    site.check(request.digests)
    _require_ledger(site, context)
    gate = Gate(site, request)
    gate.admit(receipt)
    try:
        with noted(receipt.rows):
            result = gate.passed(receipt, answer(site, request))
    finally:
        receipt.ledgers = ledger_heads(site)
    receipt.errors = {client: failure.sentence for client, failure in result.failures.items()}
    if site.data is not None:
        for client, why in receipt.errors.items():
            log.warning("client %s: %s", client, why)
    content = leave(site, request.kind, result).pack()
    gate.release(content)
    return content


def _site(context: Context) -> Site:
    """Return the site.

    Raises
    ------
    RefusalError
        If it does not take part in such a run.
    """
    try:
        return site_of(context)
    except RefusalError:
        raise
    except FedproofError as error:
        raise RefusalError(Refusal.settings, str(error)) from None


def _require_ledger(site: Site, context: Context) -> None:
    """Refuse to go on with a ledger that was put back.

    Raises
    ------
    RefusalError
        Then.
    """
    try:
        require_newest(site, audit_of(context.node_config), context.node_config)
    except FedproofError as error:
        raise RefusalError(Refusal.records, str(error)) from None


def _refusal(receipt: Receipt, failure: Failure, context: Context) -> RecordDict:
    log.warning("refused: %s", failure.sentence)
    receipt.reason = failure.sentence
    return refusing(failure.told(simulated=not is_silo(context))).pack()


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
        return refusing(Refusal.records).pack()
    return content


@contextmanager
def excused(failures: dict[str, Failure], client: str) -> Iterator[None]:
    """Note why a client failed, and go on without it."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, FedproofError | WireError):
            # The text of an unforeseen error may quote data: it stays in this node's log.
            log.exception("client %s failed", client)
        failures[client] = Failure.of(error)
