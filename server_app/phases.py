"""Whom the phases of a round ask, and how: in clear, or in sums that hide single answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from conf.errors import FedproofError
from conf.schema import Engine, Settings
from server_app.asynchronous import AsyncTraining, unused
from server_app.evaluating import Evaluation, NoisedEvaluation
from server_app.federation.flow import Flow
from server_app.federation.grid import ClientGrid
from server_app.federation.roster import Roster
from server_app.federation.sampling import sample
from server_app.noised import NoisedSums
from server_app.privacy.account import Account
from server_app.samplers import Sampler
from server_app.samplers._live import Live
from server_app.secure.collected import Collector, Purpose
from server_app.secure.evaluating import SecureEvaluation
from server_app.secure.protection import collector_of
from server_app.secure.training import SecureTraining
from server_app.training import Training
from task.objectives import Objective
from task.privacy.evaluation import Evaluations
from task.profiling import Stopwatch
from task.secure.kinds import Kind


class Phases:
    """Cohorts, and who trains and evaluates with them.

    Parameters
    ----------
    settings : Settings
        Of the run.
    grid : ClientGrid
        To the clients.
    roster : Roster
        Who is there.
    account : Account
        What the clients' privacy costs; it may draw cohorts its own way.
    run : str
        Flower's id of the run.
    sampler : Sampler
        Draws who trains.
    sum_suffices : bool
        Whether the strategy needs no more than the weighted mean of the models.

    Raises
    ------
    FedproofError
        If sums of so few clients may not be seen.
    """

    def __init__(
        self,
        settings: Settings,
        grid: ClientGrid,
        roster: Roster,
        account: Account,
        run: str,
        *,
        sampler: Sampler,
        sum_suffices: bool,
    ) -> None:
        self._settings = settings
        self._grid = grid
        self._roster = roster
        self._account = account
        self._sampler = sampler
        self._sum_suffices = sum_suffices
        size = settings.federation.fraction * len(roster.trainable)
        self._collector: Collector | None = collector_of(settings, grid, run, size)
        self._flow = Flow(grid, roster)

    @property
    def attempts(self) -> int:
        """How often a round may be tried.

        Once in secure sums, which no client joins twice, and once where silos noise what they
        send: a silo answers a round once, and whoever answered would be missing the second time.
        """
        noised = self._settings.privacy.name != "none"
        remote = self._settings.federation.engine is Engine.remote
        if self._collector is not None or (noised and remote):
            return 1
        return self._settings.federation.retries + 1

    def end(self) -> dict[str, Any]:
        """Count what was answered too late; return a summary's part on that and on secure sums."""
        if isinstance(self._sampler, Live):
            return {"unused": unused(self._flow, self._sampler, self._grid, self._account)}
        return {} if self._collector is None else {"secure": self._collector.facts()}

    def gather(self, number: int, attempt: int) -> None:
        """Draw the cohort that trains in a round."""
        self._grid.cohort = self._trainers(number, attempt)

    def training(self, number: int, clock: Stopwatch) -> Training:
        """Return who trains this round's cohort."""
        told = (self._grid, self._roster, clock, self._account, self._sampler)
        if isinstance(self._sampler, Live):
            least = self._settings.federation.min_clients
            return AsyncTraining(self._flow, self._sampler, least, *told, sum_suffices=False)
        if self._collector is None:
            return Training(*told, sum_suffices=self._sum_suffices)
        upcoming = partial(self._next, number, trained=True)
        return SecureTraining(self._collector, upcoming, *told, sum_suffices=False)

    def evaluates(self, number: int, *, last: bool) -> bool:
        """Tell whether a round ends with an evaluation."""
        due = last or number % self._settings.evaluate_every == 0
        return due and self._account.evaluation is not Evaluations.none

    def evaluation(
        self, number: int, objective: Objective
    ) -> Evaluation | NoisedEvaluation | SecureEvaluation:
        """Draw the cohort that evaluates in a round; return who evaluates with it.

        Raises
        ------
        FedproofError
            If nobody can.
        """
        if not self._roster.testable:
            raise FedproofError("no client has held-out rows: raise task.test_fraction.")
        self._grid.cohort = self._evaluators(number)
        noised = None
        if self._account.evaluation is Evaluations.noised:
            metric = self._settings.stop.metric or self._settings.task.metric
            noised = NoisedSums(objective, metric, self._account)
        if self._collector is not None:
            upcoming = partial(self._next, number, trained=False)
            return SecureEvaluation(objective, self._grid, self._collector, upcoming, noised)
        if noised is not None:
            return NoisedEvaluation(noised, self._grid, self._roster)
        return Evaluation(objective, self._grid, self._roster)

    def _next(self, number: int, *, trained: bool) -> Purpose | None:
        """Return what comes after a round's training, or its evaluation, if that is known."""
        last = number == self._settings.rounds
        if trained and self.evaluates(number, last=last):
            return Purpose(Kind.EVALUATE.value, number, tuple(self._evaluators(number)))
        if last or not self._account.foreseeable:
            return None
        return Purpose(Kind.TRAIN.value, number + 1, tuple(self._trainers(number + 1, 0)))

    def _trainers(self, number: int, attempt: int) -> list[str]:
        def draw(clients: Sequence[str], fraction: float) -> list[str]:
            rows = self._roster.rows
            if clients is not self._roster.trainable:
                rows = {client: rows[client] for client in clients}
            return self._sampler.draw(rows, fraction, number, attempt)

        return self._account.cohort(self._roster.trainable, draw)

    def _evaluators(self, number: int) -> list[str]:
        fraction = self._settings.federation.fraction_evaluate
        seed = self._settings.seed
        drawn = sample(self._roster.testable, fraction, seed, "evaluate", number)
        # Whose node is at work would let all others wait; at the end all are asked.
        busy = set() if number == self._settings.rounds else self._flow.busy
        return [c for c in drawn if self._roster.members[c].node not in busy] or drawn
