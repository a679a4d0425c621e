"""Secure aggregation over a Grid: four exchanges for a sum, of which neighbouring sums share two.

Clients sign keys for their next session along with whose vectors arrived in this one, and deal the
shares of the next session along with unmasking this one. So a sum takes an exchange for the masked
vectors, one for signatures, and one for unmasking; only the first takes two more.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

from conf.errors import FedproofError
from server_app.federation.grid import ClientGrid
from server_app.federation.validation import InvalidAnswerError
from server_app.secure.asking import SECURE, Parts, answered, layouts
from server_app.secure.collected import Check, Collected, Purpose, Tally, Upcoming
from server_app.secure.group import Group
from task.secagg.server import AbandonedError
from task.secagg.session import Advert
from task.secure.kinds import Kind
from task.secure.secagg import SecAgg
from task.seeding import generator
from task.wire import WireError, blob

log = logging.getLogger("flwr")


class SecAggCollector:
    """Brings sessions about.

    Parameters
    ----------
    protection : SecAgg
        Settings of the run.
    grid : ClientGrid
        To the clients.
    run : str
        Flower's id of the run, by which clients know it, too.
    seed : int
        Of the groups.
    secret : bool
        Whether nobody may know who trains.
    """

    def __init__(
        self, protection: SecAgg, grid: ClientGrid, run: str, seed: int, *, secret: bool = False
    ) -> None:
        self._protection = protection
        self._grid = grid
        self._run = run
        self._seed = seed
        self._adverts: dict[str, Advert] = {}
        self._prepared: tuple[Purpose, list[Group]] | None = None
        self._failed: dict[str, str] = {}
        self._secret = secret
        self._tally = Tally(secret=secret)

    def facts(self) -> dict[str, Any]:
        """Return what a summary says of all sums so far."""
        terms = self._protection.terms
        return {
            "aggregation": "secagg",
            "adversary": "active" if terms.active else "semi_honest",
            "min_cohort": terms.min_cohort,
            "groups": self._protection.groups,
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
        """Send clients their messages; return sums of what they answered.

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
        """
        self._timeout = timeout
        groups = self._opened(purpose)
        failed, self._failed = self._failed, {}
        result = Collected(failed=failed)
        self._gather(groups, messages, result, check)
        following = upcoming()
        self._agree(groups, following)
        self._unmask(groups, following)
        for group in groups:
            try:
                result.sums.append(group.sum())
            except AbandonedError as error:
                result.abandoned.append(str(error))
        self._tally.add(purpose, result)
        summed = {client for total in result.sums for client in total.clients}
        reasons = "; ".join(result.abandoned)
        for client in set(result.answers) - summed:
            result.failed[client] = f"its group's sum was abandoned: {reasons}"
        result.answers = {c: told for c, told in result.answers.items() if c in summed}
        return result

    def _opened(self, purpose: Purpose) -> list[Group]:
        """Return sessions whose clients have dealt shares, as prepared or made now."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared[0] == purpose:
            return prepared[1]
        self._take_adverts(self._ask(self._lacking(purpose)))
        groups, asked = self._dealing(purpose)
        self._take_shares(groups, self._ask(asked))
        return groups

    def _lacking(self, purpose: Purpose) -> Parts:
        """Return requests for keys of those whose keys are not known."""
        return {
            client: RecordDict({"advertise": ConfigRecord()})
            for client in purpose.cohort
            if client not in self._adverts
        }

    def _take_adverts(self, answers: Mapping[str, RecordDict | str]) -> None:
        for client in answers:
            try:
                told = answered(answers, client, "advertise")
                advert = Advert.unpack(client, blob(told, "advert"))
                advert.require_signed()
                self._adverts[client] = advert
            except (FedproofError, WireError) as error:
                self._failed[client] = str(error)

    def _dealing(self, purpose: Purpose) -> tuple[list[Group], Parts]:
        """Return new sessions, and requests for shares; the keys are used up by that."""
        there = sorted(client for client in purpose.cohort if client in self._adverts)
        adverts = {client: self._adverts.pop(client) for client in there}
        groups = [
            Group(self._protection, self._run, purpose, [adverts[client] for client in part])
            for part in self._split(purpose, there)
        ]
        return groups, {c: told for group in groups for c, told in group.requests().items()}

    def _split(self, purpose: Purpose, there: list[str]) -> list[list[str]]:
        count = self._protection.groups if purpose.name == Kind.TRAIN else 1
        order = generator(self._seed, "groups", purpose.number).permutation(len(there))
        mixed = [there[i] for i in order] if count > 1 else there
        return [sorted(mixed[i::count]) for i in range(min(count, len(there)))]

    def _take_shares(
        self, groups: Sequence[Group], answers: Mapping[str, RecordDict | str]
    ) -> None:
        for group in groups:
            for client in group.clients:
                try:
                    group.take_shares(client, answered(answers, client, "share"))
                except (FedproofError, WireError) as error:
                    self._failed[client] = str(error)

    def _gather(
        self,
        groups: Sequence[Group],
        messages: Sequence[Message],
        result: Collected,
        check: Check,
    ) -> None:
        """Let the clients do what they are asked for, and add up the vectors that come back."""
        told = {self._grid.receiver(message): message for message in messages}
        of = {client: group for group in groups for client in group.dealt if client in told}
        asked = {
            client: RecordDict({**told[client].content, "secure": group.delivery(client)})
            for client, group in of.items()
        }
        kind = messages[0].metadata.message_type if messages else SECURE
        answers = self._grid.ask(kind, asked, self._timeout)
        for group in groups:
            group.expect(layouts({client: answers.get(client, "") for client in group.dealt}))
        for client, answer in answers.items():
            try:
                if isinstance(answer, str):
                    raise InvalidAnswerError(answer)
                check(answer)
                of[client].add(client, answer)
                result.answers[client] = answer
            except (FedproofError, WireError, InvalidAnswerError) as error:
                result.failed[client] = str(error)

    def _agree(self, groups: Sequence[Group], following: Purpose | None) -> None:
        asked: Parts = {}
        for group in groups:
            root, alive = group.server.session.root, group.server.arrived
            request = RecordDict({"agree": ConfigRecord({"root": root, "alive": alive})})
            asked |= dict.fromkeys(group.alive, request)
        for client, request in self._lacking(following).items() if following else ():
            asked[client] = RecordDict({**asked.get(client, {}), **request})
        answers = self._ask(asked)
        for group in groups:
            for client in group.alive:
                try:
                    signature = blob(answered(answers, client, "agree"), "signature")
                    group.server.take_signature(group.server.numbers[client], signature)
                except (FedproofError, WireError) as error:
                    self._warn(error)
        if following:
            self._take_adverts({c: a for c, a in answers.items() if "advertise" in asked[c]})

    def _unmask(self, groups: Sequence[Group], following: Purpose | None) -> None:
        asked: Parts = {}
        for group in groups:
            asked |= group.unmasking()
        unmasking = set(asked)
        coming: list[Group] = []
        if following:
            coming, shares = self._dealing(following)
            for client, request in shares.items():
                asked[client] = RecordDict({**asked.get(client, {}), **request})
        answers = self._ask(asked)
        for group in groups:
            for client in group.clients:
                if client in unmasking:
                    try:
                        group.take_unmasking(client, answered(answers, client, "unmask"))
                    except (FedproofError, WireError) as error:
                        self._warn(error)
        if following:
            self._take_shares(coming, answers)
            self._prepared = following, coming

    def _warn(self, error: Exception) -> None:
        if not self._secret:
            log.warning("%s", error)

    def _ask(self, asked: Parts) -> dict[str, RecordDict | str]:
        return self._grid.ask(SECURE, asked, self._timeout) if asked else {}
