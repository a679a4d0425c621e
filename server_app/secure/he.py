"""Homomorphic encryption over a Grid: encrypted answers, their sum, and two clients that open it.

A sum takes two exchanges. Two more come before the first, and where clients join later, for the
key to reach them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from conf.errors import FedproofError
from server_app.federation.grid import ClientGrid
from server_app.federation.validation import InvalidAnswerError, decode
from server_app.secure.asking import SECURE, Parts, answered, layouts
from server_app.secure.collected import (
    Check,
    Collected,
    HiddenSum,
    Purpose,
    Tally,
    Upcoming,
    implausible,
)
from server_app.secure.keys import KeyDelivery
from task.arrays import array_of, record_of
from task.he.answers import AnswerSum, Opened
from task.he.contexts import Scheme
from task.layouts import Layout, usual
from task.secure.he import HE
from task.seeding import generator
from task.wire import WireError, config

log = logging.getLogger("flwr")
_OPENERS = 2
"""Clients that open each sum, so that none can make it up alone."""


class AbandonedError(Exception):
    """There is no sum."""


@dataclass(frozen=True)
class _Claim:
    """What one client says that a sum holds."""

    client: str
    opened: Opened


class HECollector:
    """Brings encrypted sums about.

    Parameters
    ----------
    protection : HE
        Settings of the run.
    grid : ClientGrid
        To the clients.
    seed : int
        Of who opens the sums.
    """

    def __init__(self, protection: HE, grid: ClientGrid, seed: int) -> None:
        self._terms = protection.terms
        self._grid = grid
        self._seed = seed
        self._timeout = 0.0
        self._keys = KeyDelivery(self._ask)
        self._tally = Tally()

    def facts(self) -> dict[str, Any]:
        """Return what a summary says of all sums so far."""
        terms = self._terms
        return {
            "aggregation": "he",
            "scheme": str(terms.scheme),
            "promise": HE.promise,
            "identities": "pinned" if terms.pinned else "unverified",
            "min_cohort": terms.min_cohort,
            **self._tally.facts(),
        }

    def collect(
        self,
        purpose: Purpose,
        messages: Sequence[Message],
        timeout: float,
        upcoming: Upcoming,
        check: Check,
    ) -> Collected:
        """Send clients their messages; return the sum of what they answered.

        Parameters
        ----------
        purpose : Purpose
            Whose cohort the messages are for.
        messages : sequence of Message
            As a strategy made them.
        timeout : float
            Seconds for each exchange.
        upcoming : callable
            What will be summed next.
        check : callable
            Refuses answers by what of them is in clear.

        Raises
        ------
        FedproofError
            If sums of so many do not fit.
        """
        self._require_room(purpose)
        self._timeout = timeout
        following = upcoming()
        clients = {*purpose.cohort, *(following.cohort if following else ())}
        failed = self._keys.prepare(clients)
        result = Collected(failed={c: why for c, why in failed.items() if c in purpose.cohort})
        try:
            total = self._gather(purpose, messages, result, check)
            result.sums.append(self._opened(purpose, total))
        except AbandonedError as error:
            why = f"the sum of round {purpose.number} ({purpose.name}) was abandoned: {error}"
            result.abandoned.append(why)
            result.failed |= dict.fromkeys(result.answers, why)
            result.answers = {}
            self._keys.doubt()
        self._tally.add(purpose, result)
        return result

    def _gather(
        self, purpose: Purpose, messages: Sequence[Message], result: Collected, check: Check
    ) -> AnswerSum:
        """Let the clients do what they are asked for, and add up the ciphertexts."""
        told = {self._grid.receiver(message): message for message in messages}
        asked = {
            client: RecordDict({**message.content, "secure": self._keys.told(client)})
            for client, message in told.items()
            if self._keys.reaches(client)
        }
        self._require(len(asked), "have the key")
        kind, total = messages[0].metadata.message_type, AnswerSum(self._terms)
        answers = self._grid.ask(kind, asked, self._timeout)
        expected = usual(layouts(answers))
        for client, answer in answers.items():
            try:
                if isinstance(answer, str):
                    raise InvalidAnswerError(answer)
                check(answer)
                layout = Layout.unpack(config(answer, "layout"))
                if layout != expected:
                    raise InvalidAnswerError("its answer holds other figures than the others'")
                total.add(client, layout, _arrays(answer, "encrypted"))
                self._keys.arrived(client)
                result.answers[client] = answer
            except (FedproofError, WireError, InvalidAnswerError) as error:
                self._keys.lost(client)
                result.failed[client] = str(error)
        self._require(len(total.clients), "answered")
        return total

    def _require_room(self, purpose: Purpose) -> None:
        asked, most = len(purpose.cohort), self._terms.max_clients
        if asked > most:
            raise FedproofError(
                f"the {asked} clients of round {purpose.number} ({purpose.name}) are more than "
                f"aggregation.max_clients={most}: raise it, or sample fewer."
            )

    def _require(self, there: int, what: str) -> None:
        if there < self._terms.min_cohort:
            raise AbandonedError(
                f"{there} clients {what}, aggregation.min_cohort={self._terms.min_cohort} are "
                "needed"
            )

    def _opened(self, purpose: Purpose, total: AnswerSum) -> HiddenSum:
        """Let clients open a sum; return what two of them agree on."""
        layout = total.layout
        assert layout is not None
        sums = {name: array_of(part) for name, part in total.totals().items()}
        request = RecordDict(
            {
                "decrypt": ConfigRecord(
                    {"purpose": purpose.name, "number": purpose.number, **layout.pack()}
                ),
                "sums": record_of(sums),
            }
        )
        claims = self._claims(purpose, total, request)
        if len(claims) < _OPENERS:
            raise AbandonedError(f"{len(claims)} clients opened it, {_OPENERS} are needed")
        one, other = claims
        error = total.error(one.opened.weight)
        allowed = 0.0 if self._terms.scheme is Scheme.bfv else 2 * error
        if not _agree(one.opened, other.opened, allowed):
            raise AbandonedError(
                f"'{one.client}' and '{other.client}' say that it holds different values"
            )
        found = _sum(total, layout, one.opened, error)
        if why := implausible(found, self._terms.range, self._terms.max_weight, math.inf):
            raise AbandonedError(why)
        return found

    def _claims(self, purpose: Purpose, total: AnswerSum, request: RecordDict) -> list[_Claim]:
        """Ask two clients, and as many more as did not answer."""
        draw = generator(self._seed, "open", purpose.name, purpose.number)
        order = [sorted(total.clients)[i] for i in draw.permutation(len(total.clients))]
        claims: list[_Claim] = []
        for asked in (order[:_OPENERS], order[_OPENERS : 2 * _OPENERS]):
            chosen = asked[: _OPENERS - len(claims)]
            answers = self._ask(dict.fromkeys(chosen, request))
            for client in chosen:
                try:
                    told = answered(answers, client, "decrypt")
                    opened = _read(told, answers[client], total)
                    claims.append(_Claim(client, opened))
                except (WireError, InvalidAnswerError) as error:
                    log.warning("'%s' opened no sum: %s", client, error)
        return claims

    def _ask(self, asked: Parts) -> dict[str, RecordDict | str]:
        return self._grid.ask(SECURE, asked, self._timeout) if asked else {}


def _arrays(content: RecordDict, name: str) -> dict[str, Any]:
    record = content.get(name)
    if not isinstance(record, ArrayRecord):
        raise WireError(f"its answer holds no '{name}' arrays")
    return {key: decode(array, key) for key, array in record.items()}


def _read(told: ConfigRecord, answer: RecordDict | str, total: AnswerSum) -> Opened:
    """Read what a client says that a sum holds; refuse what it cannot hold."""
    assert isinstance(answer, RecordDict) and total.layout is not None
    arrays = _arrays(answer, "opened")
    count, weight = told.get("count"), told.get("weight")
    shapes = {"mean": (total.layout.size,), "figures": (sum(total.layout.figures.values()),)}
    for name, shape in shapes.items():
        array = arrays.get(name)
        if array is None or array.shape != shape or array.dtype != np.float64:
            raise WireError(f"its '{name}' does not fit what was summed")
        if not np.isfinite(array).all():
            raise WireError(f"its '{name}' holds NaN or infinity")
    there = len(total.clients)
    if (
        count != there
        or not isinstance(weight, int)
        or weight < (there if shapes["mean"][0] else 0)
    ):
        raise WireError(f"it opened another sum than that of {there} answers")
    return Opened(there, weight, arrays["mean"], arrays["figures"])


def _agree(one: Opened, other: Opened, allowed: float) -> bool:
    same = one.weight == other.weight and np.array_equal(one.figures, other.figures)
    return same and bool(np.abs(one.mean - other.mean).max(initial=0.0) <= allowed)


def _sum(total: AnswerSum, layout: Layout, opened: Opened, error: float) -> HiddenSum:
    ends = np.cumsum(list(layout.figures.values()))[:-1]
    parts = np.split(opened.figures, ends) if layout.figures else []
    figures = {name: part.tolist() for name, part in zip(layout.figures, parts, strict=True)}
    update, error = opened.mean * opened.weight, error * opened.weight
    return HiddenSum(total.clients, len(total.clients), update, figures, error)
