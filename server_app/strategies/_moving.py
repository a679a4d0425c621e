"""What our own strategies share: they move the model by what clients moved it, in float64."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy
from numpy.typing import NDArray
from torch import nn

from conf.schema import Settings
from server_app.federation.layout import Layout, flat
from server_app.federation.roster import Roster
from server_app.samplers import Sampler
from server_app.strategies._common import ON_CLIENTS
from task.arrays import array_of, record_of, values_of
from task.client_update import update_of
from task.flat import FlatModel
from task.options import choice
from task.wire import VECTORS, records

Vector = NDArray[np.float64]
WEIGHTINGS = ("rows", "clients")


@dataclass(frozen=True)
class Around:
    """What a strategy may know of its run.

    Attributes
    ----------
    settings : Settings
        Of the run.
    trainable : array of bool, shape (s,)
        Which values of the state are trained; the others, such as statistics, are averaged.
    roster : Roster
        Who is there.
    sampler : Sampler
        Who is asked to train.
    """

    settings: Settings
    trainable: NDArray[np.bool_]
    roster: Roster
    sampler: Sampler


@dataclass(frozen=True)
class Answers:
    """What the clients of one round answered.

    Attributes
    ----------
    nodes : list of int
        Their numbers on the Grid.
    models : list of array, shape (s,)
        What each trained.
    weights : array, shape (clients,)
        What each counts; their sum is 1.
    share : float
        What they count together among all clients of the federation, at most 1.
    metrics : list of MetricRecord
        What each says of its training.
    vectors : dict of list of array, shape (p,)
        What each sent beside its model, by name.
    """

    nodes: list[int]
    models: list[NDArray[Any]]
    weights: Vector
    share: float
    metrics: list[MetricRecord]
    vectors: dict[str, list[NDArray[Any]]]

    def mean(self, values: Iterable[NDArray[Any]], factors: Vector | float = 1.0) -> Vector:
        """Return the weighted mean of each client's values, times a factor of its own."""
        shares = np.broadcast_to(self.weights * factors, self.weights.shape)
        return np.asarray(
            sum(w * np.asarray(v, np.float64) for w, v in zip(shares, values, strict=True))
        )


class Moving(FedAvg):
    """A strategy of ours.

    Parameters
    ----------
    options : mapping
        ``weighting``: clients count by their training ``rows``, as in FedAvg, or alike.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(**ON_CLIENTS)
        self._by_rows = choice(options, "strategy.weighting", WEIGHTINGS) == "rows"
        self._around: Around | None = None
        self._before: ArrayRecord | None = None

    @abstractmethod
    def move(self, before: Vector, mean: Vector, answers: Answers) -> Vector:
        """Return the new state.

        Parameters
        ----------
        before : array, shape (s,)
            The global model that the round began with.
        mean : array, shape (s,)
            The clients' mean.
        answers : Answers
            What it is the mean of.
        """

    def told(self) -> dict[str, Vector]:
        """Return the vectors that clients are sent beside the model."""
        return {}

    def facts(self) -> dict[str, float]:
        """Return what there is to record of the last round besides the clients' metrics."""
        return {}

    def check(self, content: RecordDict, rows: int) -> None:
        """Refuse an answer that the strategy must not use.

        Parameters
        ----------
        content : RecordDict
            A client's, with a valid model and metrics.
        rows : int
            Its training rows.

        Raises
        ------
        InvalidAnswerError
            With the reason.
        """

    def acquaint(self, around: Around) -> None:
        """Let the strategy know its run, before the first round."""
        self._around = around

    @property
    def around(self) -> Around:
        """What the strategy knows of its run."""
        assert self._around is not None, "acquaint comes first"
        return self._around

    @property
    def vectors(self) -> dict[str, int]:
        """Names of the vectors that each client must send, and how long they are."""
        size = int(self.around.trainable.sum())
        return dict.fromkeys(update_of(self.around.settings).sends, size)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every client that the Grid shows; remember where the round begins."""
        self._before = arrays
        messages = list(super().configure_train(server_round, arrays, config, grid))
        if vectors := self.told():
            told = record_of({k: array_of(v.astype(np.float32)) for k, v in vectors.items()})
            for message in messages:
                message.content[VECTORS] = told
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Move the model; what is not trained becomes the clients' mean."""
        replies = [reply for reply in replies if not reply.has_error()]
        like, self._before = self._before, None
        if not replies:
            return None, None
        assert like is not None
        answers = self._answers(replies)
        mean = answers.mean(answers.models)
        before = vector_of(like)
        moved = np.where(self.around.trainable, self.move(before, mean, answers), mean)
        contents = [reply.content for reply in replies]
        metrics = self.train_metrics_aggr_fn(contents, self.weighted_by_key)
        return arrays_of(moved, like), MetricRecord({**metrics, **self.facts()})

    def _answers(self, replies: Sequence[Message]) -> Answers:
        contents = [reply.content for reply in replies]
        metrics = [records(content, MetricRecord)[0] for content in contents]
        roster = self.around.roster
        if self._by_rows:
            weights = np.array([float(str(m[self.weighted_by_key])) for m in metrics])
            whole = float(sum(roster.members[client].train for client in roster.trainable))
        else:
            weights, whole = np.ones(len(replies)), float(len(roster.trainable))
        total = weights.sum()
        return Answers(
            [reply.metadata.src_node_id for reply in replies],
            [vector_of(_arrays(content, self.arrayrecord_key)) for content in contents],
            weights / total,
            min(1.0, float(total) / whole),
            metrics,
            {
                name: [values_of(_arrays(content, VECTORS)[name]) for content in contents]
                for name in self.vectors
            },
        )


def acquaint(
    strategy: Strategy, settings: Settings, module: nn.Module, roster: Roster, sampler: Sampler
) -> None:
    """Let a strategy of ours, and its clients' half, know what it has to do with.

    Raises
    ------
    FedproofError
        If the model is none for it.
    """
    update_of(settings).check(module)
    if isinstance(strategy, Moving):
        trainable = FlatModel(module).trainable.numpy() > 0
        strategy.acquaint(Around(settings, trainable, roster, sampler))


def _arrays(content: RecordDict, key: str) -> ArrayRecord:
    record = content[key]
    assert isinstance(record, ArrayRecord)
    return record


def vector_of(arrays: ArrayRecord) -> NDArray[Any]:
    """Return a record's values as one vector."""
    return flat(arrays.values()).numpy()


def arrays_of(vector: NDArray[Any], like: ArrayRecord) -> ArrayRecord:
    """Return a vector in the names, shapes and types of a record."""
    return Layout(like).arrays_of(torch.from_numpy(vector))
