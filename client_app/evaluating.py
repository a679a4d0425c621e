"""Evaluate a cohort: exact figures, sums with noise of their own, or no answer.

Which of them is the run's ``privacy.evaluation``; a silo whose policy demands privacy gives no
exact figures, whatever the run says.
"""

from __future__ import annotations

import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from client_app.answering import excused
from client_app.gate import note
from client_app.guard import Moment
from client_app.node import Node
from client_app.secure.revealed import Question
from client_app.training import clocked
from conf.errors import FedproofError
from task.evaluation import UNANSWERED, bounded_of, bounded_sums
from task.objectives import Metrics, Statistics
from task.privacy.evaluation import Evaluations
from task.privacy.noise import SecureNoise
from task.profiling import Stopwatch
from task.secure.kinds import Kind
from task.wire import Cohort, config


class Evaluating:
    """One cohort's evaluation.

    Parameters
    ----------
    node : Node
        Whose clients they are.
    cohort : Cohort
        What each client is told.
    run : str
        Flower's id of the run.
    """

    def __init__(self, node: Node, cohort: Cohort, run: str) -> None:
        self._node = node
        self._cohort = cohort
        self._learner = node.learner(cohort.header)
        self._secure = node.site.secure(run)
        self._store = node.personal_store(cohort.header)
        self._clock = Stopwatch()

    def run(self) -> Cohort:
        """Evaluate everyone."""
        torch.set_num_threads(self._node.settings.train.threads)
        parts: dict[str, RecordDict] = {}
        errors: dict[str, str] = {}
        for client in self._cohort.parts:
            with excused(errors, client), self._clock.stage("evaluation"):
                noised = evaluations_of(self._node) is Evaluations.noised
                parts[client] = self._noised(client) if noised else self._exact(client)
        return Cohort(parts, errors, clocked(self._node, self._clock))

    def _exact(self, client: str) -> RecordDict:
        """Return a client's own metrics, and the sums behind them."""
        with self._clock.stage("data"):
            data = self._learner.data(client)
        note(client, len(data.test))
        number, kept = self._number(client), self._kept(client)
        models = self._learner.models(self._cohort.parts[client]["arrays"])
        result = models.evaluate(client, data, kept, self._node.settings, number)
        return self._answer(client, len(data.test), result.metrics, result.statistics)

    def _noised(self, client: str) -> RecordDict:
        """Return sums with noise, which were written into the ledger before rows were read."""
        learner, moment = self._learner, Moment.of(self._cohort.header, self._number(client))
        module = learner.models(self._cohort.parts[client]["arrays"]).own(self._kept(client)).module
        bounded = bounded_of(learner.objective)
        rows, held_out = public_size(self._node, client)
        noise, told = self._node.guard.evaluation(client, rows, moment)
        with self._clock.stage("data"):
            data = learner.data(client).test
        note(client, len(data))
        sums = bounded_sums(module, data, learner.objective, per_client=noise.per_client)
        answer = self._answer(client, held_out, {}, noise.noised(sums, bounded, SecureNoise()))
        answer["privacy"] = told
        return answer

    def _answer(self, client: str, rows: int, metrics: Metrics, sums: Statistics) -> RecordDict:
        """Return a client's answer; in secure sums, only what hides it."""
        if self._secure is not None:
            part = self._cohort.parts[client]
            question = Question.of(Kind.EVALUATE, self._number(client), part)
            return self._secure.hidden(client, question, torch.empty(0), 1, sums)[0]
        return RecordDict(
            {
                "metrics": MetricRecord({"num-examples": rows, **metrics}),
                "statistics": ConfigRecord({name: list(v) for name, v in sums.items()}),
            }
        )

    def _number(self, client: str) -> int:
        """Return the number of the round."""
        return int(str(config(self._cohort.parts[client], "config")["server-round"]))

    def _kept(self, client: str) -> dict[str, torch.Tensor]:
        """Return what the client keeps of its own model."""
        with self._clock.stage("state"):
            if self._store is None:
                return {}
            return self._store.load(client, self._number(client) + 1)


def evaluations_of(node: Node) -> Evaluations:
    """Return what leaves of a node's evaluations.

    Raises
    ------
    FedproofError
        If nothing does.
    """
    privacy = node.guard.privacy
    kind = Evaluations.exact if privacy is None else privacy.evaluation
    if kind is Evaluations.exact and node.site.policy.demands_privacy:
        kind = Evaluations.none
    if kind is Evaluations.none:
        raise FedproofError(UNANSWERED)
    return kind


def public_size(node: Node, client: str) -> tuple[int, int]:
    """Return a client's training and held-out rows as everybody may know them."""
    return node.source.size(client)
