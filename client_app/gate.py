"""What a silo's policy file says to a message before any data is touched, and to its answer.

Without a file, as in simulations, everything passes that the run's own checks let pass.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client_app.site import Site
from task.arrays import values_of
from task.audit import AuditLog, Receipt
from task.rules import ANY, RefusedError, Rules
from task.wire import Cohort, WireError, wire_bytes

_COUNTS = ("num-examples", "steps", "unclipped")
"""Metrics that say how much was done, not how well."""
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
    audit : AuditLog or None
        Where it is written how often a client trained.
    """

    def __init__(self, site: Site, audit: AuditLog | None) -> None:
        self._site = site
        self._audit = audit

    @property
    def _rules(self) -> Rules | None:
        return self._site.policy.rules

    def admit(self, receipt: Receipt, cohort: Cohort) -> None:
        """Refuse a message that the policy does not allow; no data has been touched by then.

        Raises
        ------
        RefusedError
            With the rule.
        """
        rules = self._rules
        if rules is None:
            return
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
        self._require_rounds(rules, receipt, cohort)
        if rules.dry_run:
            raise RefusedError("dry_run", "all else allows it, and nothing leaves")

    def _require_columns(self, rules: Rules) -> None:
        if not rules.columns:
            return
        from task.source import load_task

        used = load_task(self._site.settings).columns(self._site.data)
        if used is None:
            raise RefusedError("columns", f"task={self._site.settings.task.name} names no columns")
        others = sorted(set(used) - set(rules.columns))
        if others:
            raise RefusedError("columns", f"the run would use {others}")

    def _require_rounds(self, rules: Rules, receipt: Receipt, cohort: Cohort) -> None:
        most = rules.limits.rounds
        if receipt.round is not None and receipt.round > most:
            raise RefusedError("limits.rounds", f"it asks for round {receipt.round} of {most}")
        if self._audit is None or not receipt.message.startswith("train"):
            return
        done = self._audit.trained(receipt.run, list(cohort.parts))
        if done >= most:
            raise RefusedError("limits.rounds", f"{done} rounds of this run were trained")

    def passed(self, receipt: Receipt, answer: Cohort) -> Cohort:
        """Return an answer with the metrics that the policy lets out.

        Raises
        ------
        RefusedError
            If it holds what must not leave at all.
        """
        rules = self._rules
        if rules is None:
            return answer
        clear = receipt.message.startswith("evaluate") and self._site.protection is None
        for client, part in answer.parts.items():
            if clear and "privacy" not in part:
                _require_evaluation(rules, client, part, receipt)
        metric = self._site.settings.task.metric
        parts = {client: _allowed(rules, part, metric) for client, part in answer.parts.items()}
        return replace(answer, parts=parts)

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


def round_of(cohort: Cohort) -> tuple[str, int | None]:
    """Return the run's name for itself and the round that a message speaks of.

    Where clients are to train alone, it is the last one.

    Raises
    ------
    WireError
        If it names them in a way that cannot be read.
    """
    lineage = cohort.header.get("lineage")
    try:
        run = "" if lineage is None else str(lineage[0][0])[:64]
        rounds = {
            int(str(record[key]))
            for part in cohort.parts.values()
            for record in part.values()
            for key in ("server-round", "rounds")
            if isinstance(record, ConfigRecord) and key in record
        }
    except (TypeError, ValueError, LookupError):
        raise WireError("it does not say of which run and round it is") from None
    return run, max(rounds, default=None)


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
