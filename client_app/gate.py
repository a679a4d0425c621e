"""What a silo's policy file says to a message before any data is touched, and to its answer.

Without a file, as in simulations, everything passes that the run's own checks let pass.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client_app.exit import Answer
from client_app.release import Plain
from client_app.request import Kind, Request
from client_app.site import Site
from task.arrays import values_of
from task.audit import Receipt
from task.rules import ANY, RefusedError, Rules, require_columns
from task.wire import wire_bytes

_COUNTS = ("num-examples", "steps", "unclipped")
"""Metrics that say how much was done, not how well."""
_READING = (Kind.train, Kind.evaluate, Kind.compare)
"""Messages for which clients' rows are read; what listing tells is counted for itself."""
_rows: ContextVar[dict[str, int]] = ContextVar("rows")


@contextmanager
def noted(rows: dict[str, int]) -> Iterator[None]:
    """Collect in `rows` how many rows of each client are used until the block ends."""
    token = _rows.set(rows)
    try:
        yield
    finally:
        _rows.reset(token)


def note(client: str, count: int) -> None:
    """Note that rows of a client are used."""
    found = _rows.get(None)
    if found is not None:
        found[client] = max(count, found.get(client, 0))


class Gate:
    """A silo's policy on one message.

    Parameters
    ----------
    site : Site
        Whose policy it is.
    request : Request
        The message.
    """

    def __init__(self, site: Site, request: Request) -> None:
        self._site = site
        self._request = request

    @property
    def _rules(self) -> Rules | None:
        return self._site.policy.rules

    def admit(self, receipt: Receipt) -> None:
        """Refuse a message that the policy does not allow, or that was answered before.

        No row has been read by then, and it is on the disk that they will be.

        Raises
        ------
        RefusalError
            With the rule.
        """
        if self._rules is not None:
            self._require_allowed(self._rules, receipt)
        request, site = self._request, self._site
        if site.data is not None and request.kind in _READING:
            site.marks(request.run).advance(
                request.kind, request.clients, request.number, once=site.protected
            )

    def _require_allowed(self, rules: Rules, receipt: Receipt) -> None:
        window = rules.quiet(datetime.now())
        if window is not None:
            raise RefusedError("quiet_hours", f"it is within {window}")
        submitter = str(receipt.sender.get("run-submitter", ""))
        if rules.submitters and submitter not in rules.submitters:
            who = f"'{submitter}'" if submitter else "nobody that this node is told of"
            raise RefusedError("submitters", f"the run is from {who}")
        if rules.code and (mine := self._site.digests["code"]) not in rules.code:
            raise RefusedError("code", f"this node's code has the digest {mine}")
        self._require_columns(rules)
        self._require_rounds(rules)
        if rules.dry_run:
            raise RefusedError("dry_run", "all else allows it, and nothing leaves")

    def _require_columns(self, rules: Rules) -> None:
        if not rules.columns:
            return
        from task.source import load_task

        task = load_task(self._site.settings)
        require_columns(rules, task.config.name, task.columns(self._site.data))

    def _require_rounds(self, rules: Rules) -> None:
        request, most = self._request, rules.limits.rounds
        if request.number > most:
            raise RefusedError("limits.rounds", f"it asks for round {request.number} of {most}")
        limits = {
            Kind.train: ("rounds", most),
            Kind.evaluate: ("evaluations", rules.limits.evaluations),
        }
        if self._site.data is None or request.kind not in limits:
            return
        name, most = limits[request.kind]
        done = self._site.marks(request.run).asked(request.kind, request.clients)
        if done >= most:
            raise RefusedError(f"limits.{name}", f"{done} {name} of this run were asked for")

    def passed(self, receipt: Receipt, answer: Answer) -> Answer:
        """Return an answer with the metrics that the policy lets out.

        Raises
        ------
        RefusedError
            If it holds what must not leave at all.
        """
        rules = self._rules
        if rules is None:
            return answer
        evaluates = self._request.kind in (Kind.evaluate, Kind.compare)
        metric = self._site.settings.task.metric
        for client, release in answer.parts.items():
            if evaluates and isinstance(release, Plain):
                _require_evaluation(rules, client, release.content, receipt)
            answer.parts[client] = release.carrying(_allowed(rules, release.content, metric))
        return answer

    def release(self, content: RecordDict) -> None:
        """Refuse an answer that is too large.

        Raises
        ------
        RefusedError
            Then.
        """
        if self._rules is None:
            return
        size, most = wire_bytes(content), self._rules.limits.update_bytes
        if size > most:
            raise RefusedError("limits.update_bytes", f"the answer has {size} bytes")


def _require_evaluation(rules: Rules, client: str, part: RecordDict, receipt: Receipt) -> None:
    least, rows = rules.metrics.min_rows, receipt.rows.get(client, 0)
    if rows < least:
        raise RefusedError("metrics.min_rows", f"'{client}' has {rows} held-out rows of {least}")
    if any(key.endswith("statistics") for key in part) and not rules.metrics.sums:
        raise RefusedError("metrics.sums", "the evaluation's sums are in the clear")


def _allowed(rules: Rules, part: RecordDict, metric: str) -> RecordDict:
    """Return a client's answer without metrics that must stay; its curve is of `metric`."""
    allowed = {*rules.metrics.allowed, *_COUNTS}
    if ANY in allowed:
        return part
    left = RecordDict()
    for key, record in part.items():
        left[key] = record
        if isinstance(record, MetricRecord):
            left[key] = MetricRecord({k: v for k, v in record.items() if k in allowed})
        elif isinstance(record, ConfigRecord) and "curve" in record and metric not in allowed:
            left[key] = ConfigRecord({**record, "curve": []})
    return left


def facts_of(content: RecordDict) -> dict[str, Any]:
    """Return what an audit log keeps of what leaves: size, hash, norm of arrays, ε told."""
    digest, squares, told = hashlib.sha256(), 0.0, []
    for key, record in content.items():
        digest.update(f"{key}\0".encode())
        if isinstance(record, ArrayRecord):
            for name, array in record.items():
                digest.update(f"{name}\0{array.dtype}\0{tuple(array.shape)}\0".encode())
                digest.update(array.data)
                squares += float(np.square(values_of(array), dtype=np.float64).sum())
        else:
            digest.update(record.deflate())
        if isinstance(record, ConfigRecord) and "ledger-epsilon" in record:
            told.append(float(str(record["ledger-epsilon"])))
    facts: dict[str, Any] = {"bytes": wire_bytes(content), "sha256": digest.hexdigest()}
    if squares:
        facts["norm"] = float(f"{math.sqrt(squares):.6g}")
    if told:
        facts["epsilon"] = max(told)
    return facts
