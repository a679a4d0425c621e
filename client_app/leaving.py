"""What leaves a client after training: clipped, noised, hidden, compressed, added up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from flwr.app import ArrayRecord, MetricRecord, RecordDict
from torch import Tensor

from client_app.guard import Charged
from client_app.node import Learner, Node
from client_app.packer import Packer
from client_app.release import Clipped, HiddenPart, Noised, Plain, Release
from client_app.request import Request
from task.aggregation import WeightedSum
from task.arrays import array_of, record_of
from task.client_update.base import Update
from task.privacy.base import Released
from task.privacy.client_dp import ClippedUpdate, require_protectable
from task.privacy.distributed_dp import NoisyUpdate
from task.privacy.dpsgd import Mechanism
from task.privacy.row_counts import UNIT
from task.profiling import Stopwatch
from task.refusals import Refusal, RefusalError
from task.secagg.seat import Seat
from task.wire import UNSENT, VECTORS, records, wire_bytes


class Leaving:
    """Makes the answers of one cohort.

    Parameters
    ----------
    node : Node
        Whose clients they are.
    request : Request
        What was asked.
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

    def __init__(self, node: Node, request: Request, learner: Learner, clock: Stopwatch) -> None:
        self._node = node
        self._request = request
        self._learner = learner
        self._clock = clock
        self.secure = node.site.secure(request.run)
        packing = learner.packing
        self.packer = None if packing is None else Packer(node, request, packing)
        self.total = _total(learner, request)

    @property
    def looks_at_updates(self) -> bool:
        """Whether what leaves depends on where training started, whatever the privacy."""
        return self.secure is not None or self.packer is not None

    @property
    def told(self) -> dict[str, Any]:
        """What the header says besides: the bytes of compressed updates that were added up."""
        return {UNSENT: self.packer.unsent} if self.packer and self.packer.unsent else {}

    def seat(self, client: str) -> Seat | None:
        """Return the session of secure aggregation that a client's update goes into, if one.

        Raises
        ------
        FedproofError
            If the client has no part in it.
        """
        return None if self.secure is None else self._part(client).seat

    def answer(
        self, client: str, update: Update, rows: int, charged: Charged | None, start: Tensor | None
    ) -> Release:
        """Return a client's answer; its model is added up, or part of it.

        Parameters
        ----------
        client : str
            Whose it is.
        update : Update
            What training came to.
        rows : int
            Training rows, as the client says that it has them.
        charged : Charged or None
            Its mechanism, where the run has privacy.
        start : Tensor or None
            The global model, where what leaves depends on it.

        Raises
        ------
        FedproofError
            If it must not leave.
        """
        metrics = MetricRecord({"num-examples": rows})
        if self._tells_steps:
            metrics["steps"] = update.trained.steps
        mechanism = None if charged is None else charged.mechanism
        if isinstance(mechanism, NoisyUpdate):
            made = self._noisy(client, update, mechanism, start)
        else:
            made = self._protected(update, mechanism, start, metrics)
        if update.sent and made.privacy not in (None, "record_dp"):
            raise RefusalError(
                Refusal.unprotected,
                "its strategy sends vectors beside the model, which the noise does not cover.",
            )
        part = RecordDict()
        if self.secure is not None:
            if not isinstance(mechanism, NoisyUpdate):
                made = self._hidden(client, made, start, metrics)
            part.update(made.content)
        if charged is not None:
            part["privacy"] = charged.record
        if self.secure is None:
            part["metrics"] = metrics
            clip = mechanism.clip if mechanism is not None and isinstance(made, Clipped) else None
            self._depart(part, (client, update.number), made, start, clip)
        if update.sent:
            sent = {name: array_of(vector.cpu().numpy()) for name, vector in update.sent.items()}
            part[VECTORS] = record_of(sent)
        return made.carrying(part)

    @property
    def _tells_steps(self) -> bool:
        """Whether steps tell nothing of a silo's rows that no noise covers (client level)."""
        privacy = self._node.guard.privacy
        covered = privacy is None or privacy.unit == UNIT
        return covered or self._node.site.data is None or bool(self._node.settings.train.steps)

    def _depart(
        self,
        part: RecordDict,
        of: tuple[str, int],
        made: Release,
        start: Tensor | None,
        clip: float | None,
    ) -> None:
        """Put what leaves into a client's answer, compressed if need be, or add it up.

        `of` is the client, and which model it trained, of several; `clip` the norm that what is
        read from compressed updates must not exceed.
        """
        client, chosen = of
        values = made.values
        assert values is not None
        if self.packer is None:
            layout, model = self._learner.layout, self._learner.model
            with self._clock.stage("summing"):
                self._add(part, values, lambda: ArrayRecord(layout.state_of(model, values, chosen)))
            return
        assert start is not None
        with self._clock.stage("compression"):
            packed, read = self.packer.pack(client, self._request.number, made.change(start), clip)
        with self._clock.stage("summing"):
            self._add(part, read, lambda: packed)
        if self.total is not None:
            self.packer.unsent[client] = wire_bytes(RecordDict({"arrays": packed}))

    def _add(self, part: RecordDict, values: Tensor, arrays: Callable[[], ArrayRecord]) -> None:
        """Add a client's values up, or put the arrays that hold them into its answer."""
        if self.total is None:
            part["arrays"] = arrays()
        else:
            self.total.add(values.cpu(), int(str(records(part, MetricRecord)[0]["num-examples"])))

    def _protected(
        self,
        update: Update,
        mechanism: Released | None,
        start: Tensor | None,
        metrics: MetricRecord,
    ) -> Release:
        """Return what leaves as its mechanism makes it; complete the metrics."""
        of = self._learner.layout.of
        if isinstance(mechanism, Mechanism):
            return Noised.trained(update, mechanism, of)
        if isinstance(mechanism, ClippedUpdate):
            require_protectable(self._learner.plain)
            assert start is not None
            trainable = self._learner.trainable
            change = (of(update.values) - start) * trainable
            if mechanism.local:
                return Noised.locally(change, start, mechanism, trainable)
            clipped, unclipped = Clipped.of(change, mechanism)
            metrics["num-examples"] = mechanism.weight
            metrics["unclipped"] = int(unclipped)
            return clipped
        assert mechanism is None
        if math.isfinite(update.trained.loss):
            metrics["loss"] = update.trained.loss
        return Plain.of(of(update.values))

    def _noisy(
        self, client: str, update: Update, mechanism: NoisyUpdate, start: Tensor | None
    ) -> Release:
        """Return an update with this client's share of the noise, in a secure sum."""
        require_protectable(self._learner.plain)
        assert start is not None
        change = (self._learner.layout.of(update.values) - start) * self._learner.trainable
        with self._clock.stage("secure aggregation"):
            return self._part(client).noise(change, mechanism)

    def _hidden(
        self, client: str, made: Release, start: Tensor | None, metrics: MetricRecord
    ) -> Release:
        """Return a client's update and its metrics, each times its weight, for a secure sum."""
        assert start is not None
        weight = int(str(metrics["num-examples"]))
        figures = {name: [float(str(value)) * weight] for name, value in metrics.items()}
        figures["num-examples"] = [float(weight)]
        with self._clock.stage("secure aggregation"):
            return self._part(client).hide(made, start, figures)

    def _part(self, client: str) -> HiddenPart:
        if self.secure is None:
            raise RefusalError(Refusal.unprotected, "its noise needs a secure sum.")
        return HiddenPart(self.secure, client, self._request)


def _total(learner: Learner, request: Request) -> WeightedSum | None:
    """Return where to add up what clients release, if the server wants no more than their sum.

    The sum of one is the model itself, which is half as long, unless sums are wanted of one, too.
    """
    if request.sum_unit is None or len(request.work) < request.hints.sum_from:
        return None
    return WeightedSum(learner.layout.size, request.sum_unit)
