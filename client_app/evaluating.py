"""Evaluate a cohort: exact figures, sums with noise of their own, or no answer.

Which of them is the run's ``privacy.evaluation``; a silo whose policy demands privacy gives no
exact figures, whatever the run says.
"""

from __future__ import annotations

import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from client_app.answering import excused
from client_app.exit import Answer
from client_app.gate import note
from client_app.moment import Moment
from client_app.node import Node
from client_app.release import HiddenPart, Noised, Plain, Release
from client_app.request import Request
from client_app.training import clocked
from task.evaluation import bounded_of, bounded_sums
from task.objectives import Metrics
from task.privacy.evaluation import Evaluations
from task.profiling import Stopwatch
from task.refusals import Refusal, RefusalError


class Evaluating:
    """One cohort's evaluation.

    Parameters
    ----------
    node : Node
        Whose clients they are.
    request : Request
        What is asked.
    """

    def __init__(self, node: Node, request: Request) -> None:
        self._node = node
        self._request = request
        self._learner = node.learner(node.agreement(request))
        self._secure = node.site.secure(request.run)
        self._store = node.personal_store(request.lineage)
        self._clock = Stopwatch()

    def run(self) -> Answer:
        """Evaluate everyone."""
        torch.set_num_threads(self._node.settings.train.threads)
        answer = Answer()
        for client in self._request.work:
            with excused(answer.failures, client), self._clock.stage("evaluation"):
                noised = evaluations_of(self._node) is Evaluations.noised
                answer.parts[client] = self._noised(client) if noised else self._exact(client)
        answer.facts |= clocked(self._node, self._clock)
        return answer

    def _exact(self, client: str) -> Release:
        """Return a client's own metrics, and the sums behind them."""
        with self._clock.stage("data"):
            data = self._learner.data(client)
        note(client, len(data.test))
        number, kept = self._request.number, self._kept(client)
        models = self._learner.models(self._request.work[client].model)
        result = models.evaluate(client, data, kept, self._node.settings, number)
        made = Plain.sums(result.statistics)
        return self._answer(client, len(data.test), result.metrics, made)

    def _noised(self, client: str) -> Release:
        """Return sums with noise, which were written into the ledger before rows were read."""
        learner, moment = self._learner, Moment.of(self._request)
        models = learner.models(self._request.work[client].model)
        module = models.own(self._kept(client)).module
        bounded = bounded_of(learner.objective)
        counts = self._node.public_size(client)
        noise, told = self._node.guard.evaluation(client, counts.train, moment)
        with self._clock.stage("data"):
            data = learner.data(client).test
        note(client, len(data))
        sums = bounded_sums(module, data, learner.objective, per_client=noise.per_client)
        made = self._answer(client, counts.test, {}, Noised.sums(sums, bounded, noise))
        return made.carrying(RecordDict({**made.content, "privacy": told}))

    def _answer(self, client: str, rows: int, metrics: Metrics, made: Release) -> Release:
        """Return a client's answer; in secure sums, only what hides it."""
        if self._secure is not None:
            return HiddenPart(self._secure, client, self._request).hide_sums(made)
        content = RecordDict(
            {
                "metrics": MetricRecord({"num-examples": rows, **metrics}),
                "statistics": ConfigRecord({k: list(v) for k, v in made.figures.items()}),
            }
        )
        return made.carrying(content)

    def _kept(self, client: str) -> dict[str, torch.Tensor]:
        """Return what the client keeps of its own model."""
        with self._clock.stage("state"):
            if self._store is None:
                return {}
            return self._store.load(client, self._request.number + 1)


def evaluations_of(node: Node) -> Evaluations:
    """Return what leaves of a node's evaluations.

    Raises
    ------
    RefusalError
        If nothing does.
    """
    privacy = node.guard.privacy
    kind = Evaluations.exact if privacy is None else privacy.evaluation
    if kind is Evaluations.exact and node.site.policy.demands_privacy:
        kind = Evaluations.none
    if kind is Evaluations.none:
        raise RefusalError(Refusal.unanswered, str(Refusal.unanswered))
    return kind
