"""What leaves a client after training: clipped, noised, hidden, compressed, added up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from torch import Tensor

from client_app.guard import Moment
from client_app.node import Learner, Node
from client_app.packer import Packer
from client_app.secure.revealed import Question
from conf.errors import FedproofError
from task.aggregation import WeightedSum
from task.arrays import array_of, record_of
from task.client_update.base import Update
from task.privacy.base import Released
from task.privacy.client_dp import ClippedUpdate, require_protectable
from task.privacy.distributed_dp import NoisyUpdate
from task.profiling import Stopwatch
from task.secagg.seat import Seat
from task.secure.kinds import Kind
from task.wire import UNSENT, VECTORS, Cohort, records, wire_bytes

_ONE = MetricRecord({"num-examples": 1})
"""All that is told of training whose noise protects that a client took part."""


class Leaving:
    """Makes the answers of one cohort.

    Parameters
    ----------
    node : Node
        Whose clients they are.
    cohort : Cohort
        What each client was told.
    learner : Learner
        With the model's layout.
    clock : Stopwatch
        Times the stages.
    run : str
        Flower's id of the run.

    Attributes
    ----------
    secure : SecureClients or None
        The clients' part in secure sums, if the run has them.
    packer : Packer or None
        Compresses updates, if the run does.
    total : WeightedSum or None
        Where models are added up, if the server wants no more than their sum.
    """

    def __init__(
        self, node: Node, cohort: Cohort, learner: Learner, clock: Stopwatch, run: str
    ) -> None:
        self._guard = node.guard
        self._cohort = cohort
        self._learner = learner
        self._clock = clock
        self.secure = node.site.secure(run)
        packing = learner.packing
        self.packer = None if packing is None else Packer(node, cohort, packing)
        self.total = _total(learner, cohort)

    @property
    def looks_at_updates(self) -> bool:
        """Whether what leaves depends on where training started, whatever the privacy."""
        return self.secure is not None or self.packer is not None

    @property
    def told(self) -> dict[str, Any]:
        """What the header says besides: the bytes of compressed updates that were added up."""
        return {UNSENT: self.packer.unsent} if self.packer and self.packer.unsent else {}

    def answer(
        self,
        client: str,
        update: Update,
        rows: int,
        private: tuple[Released | None, Tensor | None],
        number: int,
    ) -> RecordDict:
        """Return a client's answer; its model is added up, or part of it.

        `private` is its mechanism, and the global model where that looks at the update; `number`
        the round's.

        Raises
        ------
        FedproofError
            If it must not leave.
        """
        mechanism, start = private
        values, trained = self._learner.layout.of(update.values), update.trained
        metrics = MetricRecord({"num-examples": rows, "steps": trained.steps})
        if isinstance(mechanism, ClippedUpdate):
            assert start is not None
            values = self._protected(values, start, mechanism, metrics)
        elif mechanism is None and math.isfinite(trained.loss):
            metrics["loss"] = trained.loss
        part, session = RecordDict(), None
        if self.secure is not None:
            assert start is not None
            if isinstance(mechanism, NoisyUpdate):
                require_protectable(self._learner.plain)
                values, metrics = (values - start) * self._learner.trainable, _ONE
            elif not isinstance(mechanism, ClippedUpdate) or mechanism.local:
                values = values - start
            part, session = self._masked((client, number), values, metrics)
        if mechanism is not None:
            with self._clock.stage("privacy"):
                moment = Moment.of(self._cohort.header, number)
                facts = (rows, len(values), session)
                part["privacy"] = self._guard.release(client, mechanism, moment, facts)
        if self.secure is None:
            part["metrics"] = metrics
            self._depart(part, (client, number), values, (mechanism, start), update.number)
        if update.sent:
            sent = {name: array_of(vector.cpu().numpy()) for name, vector in update.sent.items()}
            part[VECTORS] = record_of(sent)
        return part

    def _depart(
        self,
        part: RecordDict,
        of: tuple[str, int],
        values: Tensor,
        private: tuple[Released | None, Tensor | None],
        chosen: int,
    ) -> None:
        """Put what leaves into a client's answer, compressed if need be, or add it up.

        `of` is the client and the round, `chosen` which model it trained, of several.
        """
        if self.packer is None:
            layout, model = self._learner.layout, self._learner.model
            with self._clock.stage("summing"):
                self._add(part, values, lambda: ArrayRecord(layout.state_of(model, values, chosen)))
            return
        mechanism, start = private
        assert start is not None
        with self._clock.stage("compression"):
            if isinstance(mechanism, ClippedUpdate) and not mechanism.local:
                packed, read = self.packer.pack(*of, values, mechanism.clip)
            else:
                packed, read = self.packer.pack(*of, values - start, None)
        with self._clock.stage("summing"):
            self._add(part, read, lambda: packed)
        if self.total is not None:
            self.packer.unsent[of[0]] = wire_bytes(RecordDict({"arrays": packed}))

    def _add(self, part: RecordDict, values: Tensor, arrays: Callable[[], ArrayRecord]) -> None:
        """Add a client's values up, or put the arrays that hold them into its answer."""
        if self.total is None:
            part["arrays"] = arrays()
        else:
            self.total.add(values.cpu(), int(str(records(part, MetricRecord)[0]["num-examples"])))

    def _masked(
        self, of: tuple[str, int], update: Tensor, metrics: MetricRecord
    ) -> tuple[RecordDict, Seat | None]:
        """Return an update and its metrics, each times its weight, for a secure sum.

        `of` is the client and the round.
        """
        assert self.secure is not None
        client, number = of
        question = Question.of(Kind.TRAIN, number, self._cohort.parts[client])
        weight = int(str(metrics["num-examples"]))
        figures = {name: [float(str(value)) * weight] for name, value in metrics.items()}
        figures["num-examples"] = [float(weight)]
        with self._clock.stage("secure aggregation"):
            return self.secure.hidden(client, question, update.cpu(), weight, figures)

    def _protected(
        self, values: Tensor, start: Tensor, mechanism: ClippedUpdate, metrics: MetricRecord
    ) -> Tensor:
        """Return what leaves for client-level privacy: the clipped update, or a noised model."""
        require_protectable(self._learner.plain)
        update, unclipped = mechanism.clipped((values - start) * self._learner.trainable)
        if mechanism.local:
            return start + mechanism.noised(update) * self._learner.trainable
        metrics["num-examples"] = mechanism.weight
        metrics["unclipped"] = int(unclipped)
        return update


def require_finite(values: Tensor) -> None:
    """Refuse an update that nobody could use.

    Raises
    ------
    FedproofError
        If some value is NaN or infinite.
    """
    # A norm is finite unless some value is not: cheaper than to look at each.
    if not torch.isfinite(values.norm()):
        raise FedproofError("its update holds NaN or infinity: lower train.lr.")


def _total(learner: Learner, cohort: Cohort) -> WeightedSum | None:
    """Return where to add the clients' models, if the server wants no more than their sum.

    The sum of one is the model itself, which is half as long, unless sums are wanted of one, too.
    """
    unit = cohort.header.get("sum_unit")
    if not isinstance(unit, float) or len(cohort.parts) < cohort.header.get("sum_from", 2):
        return None
    return WeightedSum(learner.layout.size, unit)
