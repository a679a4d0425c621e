"""Federated training of one round: ask the cohort, check its answers, add them up where allowed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from server_app.federation.compression import Unpacker
from server_app.federation.grid import ClientGrid
from server_app.federation.reduction import WEIGHT, Reduction
from server_app.federation.roster import Roster
from server_app.federation.validation import (
    Reference,
    check_metrics,
    same_metrics,
    sift,
)
from server_app.privacy.account import Account
from server_app.profile import EXCHANGE
from server_app.samplers import Sampler
from server_app.strategies._moving import Moving
from task.arrays import record_of
from task.profiling import Stopwatch
from task.wire import records

log = logging.getLogger("flwr")


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep Flower's strategies from logging how many clients they were given."""
    level = log.level
    log.setLevel(max(logging.ERROR, level))
    try:
        yield
    finally:
        log.setLevel(level)


class Training:
    """The training of one model by one cohort.

    Parameters
    ----------
    grid : ClientGrid
        With the cohort to ask.
    roster : Roster
        How many training rows each client joined with.
    clock : Stopwatch
        Times the stages.
    account : Account
        What the clients' privacy costs.
    sampler : Sampler
        Who drew the cohort: learns losses, and may say what each client counts.
    sum_suffices : bool
        Whether the strategy needs no more than the weighted mean of the models.

    Attributes
    ----------
    privacy : dict
        A line's part on privacy, after `run`.
    abandoned : str
        Why there is nothing to aggregate, after `run`; empty otherwise.
    """

    def __init__(
        self,
        grid: ClientGrid,
        roster: Roster,
        clock: Stopwatch,
        account: Account,
        sampler: Sampler,
        *,
        sum_suffices: bool,
    ) -> None:
        self._grid = grid
        self._roster = roster
        self._clock = clock
        self._account = account
        self._sampler = sampler
        self._sum_suffices = sum_suffices
        self.privacy: dict[str, Any] = {}
        self.abandoned = ""

    def run(
        self, strategy: Strategy, number: int, arrays: ArrayRecord, timeout: float
    ) -> tuple[list[Message], list[str], dict[str, str]]:
        """Let the cohort train; return what to aggregate, who answered, and why others failed."""
        config = ConfigRecord({"server-round": number, **self._account.told()})
        with self._clock.stage("configuration"):
            asked, messages = self._configure(strategy, number, arrays, config)
            reduction = self._reduction(arrays)
        weights = self._weights()
        # Nodes add up by rows only.
        unit = None if reduction is None or weights else reduction.unit
        with self._clock.stage(EXCHANGE):
            replies = self._grid.exchange(messages, timeout=timeout, sum_unit=unit)
        with self._clock.stage("validation"):
            checker = self._checker(strategy, number, arrays, reduction is not None)
            valid, failed = sift(replies, self._grid.name, checker)
            totals = self._grid.totals
            if reduction is not None:
                totals = reduction.usable(totals, failed)
                valid = [reply for reply in valid if self._grid.name(reply) not in failed]
            answered = [self._grid.name(reply) for reply in valid]
        complete = len(answered) >= self._account.least(len(messages))
        with self._clock.stage("aggregation"):
            told = [(c, reply.content) for c, reply in zip(answered, valid, strict=True)]
            self._learn(told)
            valid = same_metrics(valid)
            for client, content in told if weights else ():
                records(content, MetricRecord)[0][WEIGHT] = weights[client]
            if reduction is not None and complete:
                valid = [reduction.combine(asked, valid, totals)]
            self.privacy = self._account.add(told)
        return valid, answered, failed

    def enough(self, replies: list[Message], answered: list[str]) -> bool:
        """Tell whether a round need not be tried again."""
        if self._account.secret:
            return bool(replies)
        return len(answered) >= self._account.least(len(self._grid.cohort))

    def line(
        self, number: int, answered: list[str], failed: dict[str, str], attempts: int
    ) -> dict[str, Any]:
        """Return a line's part on who was asked, as far as that is no secret."""
        if self._account.secret:
            return {"sampled": [], "answered": [], "failed": {}, "secret": True, **self.privacy}
        return {
            "sampled": list(self._grid.cohort),
            "answered": answered,
            "failed": failed,
            "attempts": attempts,
            **self.privacy,
        }

    def _configure(
        self, strategy: Strategy, number: int, arrays: ArrayRecord, config: ConfigRecord
    ) -> tuple[Message, list[Message]]:
        """Return a message like those that clients are sent, and the cohort's messages.

        A cohort that was drawn may be empty; strategies know none, and are shown somebody.
        """
        cohort = self._grid.cohort
        self._grid.cohort = cohort or self._roster.trainable[:1]
        with _unlogged() if self._account.secret else nullcontext():
            # A copy, because some strategies consume the record that they are given.
            messages = list(strategy.configure_train(number, record_of(arrays), config, self._grid))
        self._grid.cohort = cohort
        return messages[0], messages if cohort else []

    def _reduction(self, arrays: ArrayRecord) -> Reduction | None:
        """Return where to add up the cohort's models, if the strategy needs no more."""
        if not self._sum_suffices:
            return None
        members = self._roster.members
        rows = sum(members[client].train for client in self._grid.cohort)
        return self._account.reduction(arrays, rows)

    def _weights(self) -> dict[str, int]:
        """Return what clients count, where that is not their rows."""
        return self._sampler.weights(self._roster.rows, self._grid.cohort) or {}

    def _learn(self, told: list[tuple[str, RecordDict]]) -> None:
        """Let the sampler know the losses of those who tell them."""
        metrics = {client: records(content, MetricRecord)[0] for client, content in told}
        self._sampler.learn({c: float(str(m["loss"])) for c, m in metrics.items() if "loss" in m})

    def _checker(
        self, strategy: Strategy, number: int, arrays: ArrayRecord, updates: bool
    ) -> Callable[[str, Message], None]:
        """Return what refuses an answer; a compressed update is made a plain one first."""
        ours = strategy if isinstance(strategy, Moving) else None
        reference, unpacker = Reference(arrays, ours.vectors if ours else None), None
        if self._grid.packing is not None:
            told = (self._grid.packing, arrays, number, self._account.told().get("clip"))
            unpacker = Unpacker(*told, updates=updates)
        summed = {client for total in self._grid.totals for client in total.clients}

        def check(client: str, reply: Message) -> None:
            rows = self._roster.members[client].train
            if unpacker is not None:
                unpacker.unpack(client, reply.content)
            if client in summed:
                check_metrics(reply.content, rows)
            else:
                reference.check_update(reply.content, rows)
            self._account.check(reply.content)
            if ours:
                ours.check(reply.content, rows)

        return check
