"""What happens to valid answers before a strategy sees them, and what is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from conf.compose import declared
from conf.errors import FedproofError
from conf.schema import Settings
from server_app.defences.base import Defence, Stack
from server_app.federation.layout import ARRAYS, Layout
from server_app.federation.reduction import WEIGHT, weight_of
from task.attacks import attack_of
from task.personalization import personalization_of
from task.privacy.client_dp import ClientDP
from task.privacy.policy import mechanism_of
from task.registry import find
from task.robust.anomaly import anomaly_scores
from task.seeding import generator
from task.wire import records

FEWEST = 4
"""Answers below which nobody can be told to be unlike the others."""


def defences_of(settings: Settings) -> list[Defence]:
    """Return the defences that the settings name: one, and what ``defence.then`` adds.

    Raises
    ------
    FedproofError
        If there is none of a name, or its settings are wrong.
    """
    chosen = [(settings.defence.name, settings.defence.options)]
    for name in settings.defence.options.get("then") or []:
        find("server_app.defences", name)
        chosen.append((name, declared("defence", name)))
    built = [find("server_app.defences", n).build(options, settings.seed) for n, options in chosen]
    return [defence for defence in built if defence is not None]


def looks_at_each(settings: Settings) -> bool:
    """Tell whether the server must see single answers, whatever the strategy.

    Raises
    ------
    FedproofError
        If that does not go with the run's privacy.
    """
    attack = attack_of(settings)
    if settings.defence.name == "none":
        return attack is not None and attack.crafts
    mechanism = mechanism_of(settings)
    if isinstance(mechanism, ClientDP) and mechanism.central:
        raise FedproofError(
            f"defence={settings.defence.name} changes updates after they were clipped, and "
            "privacy.placement=central fits its noise to a plain sum of clipped ones: choose "
            "privacy.placement=local, or leave the defence out."
        )
    return True


def _comparable(settings: Settings) -> bool:
    """Tell whether all answers of a round are changes of one model.

    Raises
    ------
    FedproofError
        If they are not, and a defence compares them.
    """
    method = personalization_of(settings)
    if method is None or not method.clusters:
        return settings.strategy.name != "fedbuff"
    if settings.defence.name != "none":
        raise FedproofError(
            f"defence={settings.defence.name} compares changes of one model, and personalization="
            f"{settings.personalization.name} has clients change several: leave one of them out."
        )
    return False


class Screen:
    """Applies the settings' defences to each round's answers.

    Parameters
    ----------
    settings : Settings
        Of the run.
    summed : bool
        Whether single answers are not seen: then there is nothing to do.
    """

    def __init__(self, settings: Settings, *, summed: bool) -> None:
        self._defences = defences_of(settings)
        self._seed = settings.seed
        self._summed = summed or not _comparable(settings)
        # Sums of groups hide who is in them; they are numbered.
        self._grouped = settings.aggregation.name != "none"
        self._clients: list[str] = []
        self._stack: Stack | None = None
        self._done: dict[str, list[int]] = {}
        self._scores: list[float] = []

    def apply(
        self, number: int, arrays: ArrayRecord, replies: Sequence[Message], clients: Sequence[str]
    ) -> list[Message]:
        """Return what the strategy aggregates in a round.

        Parameters
        ----------
        number : int
            Of the round.
        arrays : ArrayRecord
            The global model.
        replies : sequence of Message
            Valid ones; changed in place.
        clients : sequence of str
            Who sent them.

        Raises
        ------
        FedproofError
            If the strategy's answers cannot be mixed.
        """
        self._stack, self._done, self._scores = None, {}, []
        if self._summed or not replies:
            return list(replies)
        self._clients = [f"group {i + 1}" for i in range(len(replies))]
        if not self._grouped:
            self._clients = list(clients)
        layout = Layout(arrays)
        before = Stack(
            layout.updates(replies),
            tuple(weight_of(reply.content) for reply in replies),
            tuple((i,) for i in range(len(replies))),
        )
        if len(replies) >= FEWEST:
            drawn = generator(self._seed, "anomaly", number)
            self._scores = anomaly_scores(before.updates, drawn).tolist()
        after = before
        for defence in self._defences:
            after, done = defence.apply(after, number)
            self._done |= done
        self._stack = after
        return _messages(layout, before, after, replies)

    def line(self, strategy: Strategy) -> dict[str, Any]:
        """Return a round's line on it, once the strategy has aggregated; empty without any."""
        if self._stack is None:
            return {}
        left_out = self._stack.within(getattr(strategy, "left_out", []))
        done = {what: rows for what, rows in self._done.items() if rows}
        if left_out:
            done["excluded"] = left_out
        told = {what: [self._clients[i] for i in rows] for what, rows in done.items()}
        scores = zip(self._clients, self._scores, strict=False)
        return {
            "anomaly": {client: round(score, 3) for client, score in scores},
            "defence": told,
        }


def _messages(
    layout: Layout, before: Stack, after: Stack, replies: Sequence[Message]
) -> list[Message]:
    """Return the rows as answers; what a row did not change keeps its very bytes."""
    result = []
    start = layout.vector()
    rows = zip(after.updates, after.weights, after.members, strict=True)
    for update, weight, members in rows:
        reply = replies[members[0]]
        if len(members) > 1:
            reply.content = _merged([replies[i].content for i in members])
        if len(members) > 1 or not torch.equal(update, before.updates[members[0]]):
            reply.content[ARRAYS] = layout.arrays_of(start + update)
        (metrics,) = records(reply.content, MetricRecord)
        metrics[WEIGHT] = weight
        result.append(reply)
    return result


def _merged(contents: list[RecordDict]) -> RecordDict:
    """Return the metrics of several answers as those of one, and a place for its model."""
    if any(len(content.array_records) > 1 for content in contents):
        raise FedproofError(
            "defence=bucketing averages answers, and this strategy's clients send more than their "
            "model: choose defence=norm_clip or nnm."
        )
    metrics = aggregate_metricrecords(contents, WEIGHT)
    return RecordDict({ARRAYS: contents[0][ARRAYS], "metrics": metrics})
