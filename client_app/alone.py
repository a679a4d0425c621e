"""Train clients alone, to tell what federation gains them (``compare=true``).

A client trains as in the run, only that nobody's models are averaged between its rounds, and
without the run's noise: its model stays here, and held-out figures are all that leaves.
"""

from __future__ import annotations

from typing import Any

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from torch import Tensor

from client_app.answering import excused, reply
from client_app.exit import Answer
from client_app.gate import note
from client_app.node import Learner, Node, node_of
from client_app.release import Plain
from client_app.request import ComparisonRequest, Request
from client_app.site import Site
from conf.errors import FedproofError
from task.base import ClientData
from task.evaluation import Evaluated, evaluate
from task.flat import FlatModel
from task.refusals import Refusal, RefusalError
from task.seeding import derive
from task.training import Memory, train


def compare_clients(message: Message, context: Context) -> Message:
    """Answer how each client's own model does on its held-out rows, and how the federated one."""

    def answer(site: Site, request: Request) -> Answer:
        node = node_of(site)
        _require_allowed(node)
        torch.set_num_threads(node.settings.train.threads)
        learner = node.learner(node.agreement(request))
        answered = Answer()
        for client, asked in request.comparisons.items():
            with excused(answered.failures, client):
                answered.parts[client] = Plain.sums({}).carrying(_compare(learner, client, asked))
        return answered

    return reply(message, context, answer)


def _require_allowed(node: Node) -> None:
    """Refuse what a run was not agreed to do, and what its protection does not cover."""
    if not node.settings.compare:
        raise FedproofError("this run has no compare=true: clients train for the federation only.")
    protected = node.guard.privacy is not None or node.site.protection is not None
    if node.site.data is not None and protected:
        raise RefusalError(
            Refusal.unprotected,
            "figures of models that a client trains alone are not covered by the run's privacy: "
            "nothing is sent.",
        )


def _compare(learner: Learner, client: str, asked: ComparisonRequest) -> RecordDict:
    data, settings = learner.data(client), learner.settings
    note(client, len(data.test))
    if not len(data.train) or not len(data.test):
        raise FedproofError(f"client '{client}' has no training rows, or no held-out rows.")
    model = learner.load(asked.federated)
    federated = evaluate(model.module, data.test, learner.objective)
    after = model.values().clone()
    model = learner.load(asked.start)
    start = model.values().clone()
    curve, steps = train_alone(learner, model, client, data, asked.rounds)
    local, metric = curve[-1], settings.task.metric
    told_curve = [each.metrics[metric] for each in curve if metric in each.metrics]
    facts: dict[str, Any] = {
        "steps": steps,
        "alignment": _cosine(model.values() - start, after - start),
        "curve": [float(value) for value in told_curve],
    }
    return RecordDict(
        {**_told("federated", federated, len(data.test)), **_told("local", local, len(data.test)),
         "facts": ConfigRecord(facts)}
    )  # fmt: skip


def train_alone(
    learner: Learner, model: FlatModel, client: str, data: ClientData, rounds: int
) -> tuple[list[Evaluated], int]:
    """Train a loaded model in place for some rounds; return how it did after each, and steps.

    Seeds and optimiser are those of a federation of one: it would end with the same model.
    """
    settings, objective = learner.settings, learner.objective
    memory: Memory = {}
    curve: list[Evaluated] = []
    steps = 0
    for number in range(1, rounds + 1):
        seed = derive(settings.seed, "train", number, client)
        kept = memory if settings.train.keep_optimizer else None
        trained = train(model, data.train, objective, settings.train, seed=seed, memory=kept)
        memory, steps = trained.memory, steps + trained.steps
        curve.append(evaluate(model.module, data.test, objective))
    if not model.values().norm().isfinite():
        raise RefusalError(
            Refusal.diverged, "training alone ended in NaN or infinity: lower train.lr."
        )
    return curve, steps


def _told(name: str, result: Evaluated, rows: int) -> dict[str, MetricRecord | ConfigRecord]:
    return {
        name: MetricRecord({"num-examples": rows, **result.metrics}),
        f"{name}-statistics": ConfigRecord({k: list(v) for k, v in result.statistics.items()}),
    }


def _cosine(left: Tensor, right: Tensor) -> float:
    """Return the cosine between two changes of a model, 0 if one of them is none."""
    norms = float(left.norm() * right.norm())
    return float(left @ right) / norms if norms > 0 else 0.0
