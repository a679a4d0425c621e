"""What leaves a node, typed by how it was made; nothing leaves that is of no such type.

A type is made only by the mechanism that its name stands for: `Noised` by asking the training that
added the noise, `Clipped` by clipping, `Masked` and `Encrypted` by the client's part in a secure
sum. What a run's settings and the silo's policy demand is then a question to the type, not to the
path by which an answer came about: a path that forgot the noise has nothing that could leave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from flwr.app import RecordDict

from client_app.request import Request
from client_app.secure.requests import SecureClients
from client_app.secure.revealed import Question
from task.arrays import digest_of
from task.refusals import Refusal, RefusalError
from task.secure.kinds import kind_of

if TYPE_CHECKING:
    # They import torch, which takes longer than what many messages of a secure sum ask for.
    from torch import Tensor

    from task.bounded import Bounded
    from task.client_update.base import Update
    from task.privacy.client_dp import ClippedUpdate
    from task.privacy.distributed_dp import NoisyUpdate
    from task.privacy.dpsgd import Mechanism
    from task.privacy.evaluation import EvaluationNoise
    from task.secagg.seat import Seat

    Pick = Callable[[Tensor], Tensor]

Figures = Mapping[str, Sequence[float]]
EVALUATION = "evaluation"
"""What noised sums over held-out rows, where a mechanism of training is named otherwise."""
_MADE = object()


@dataclass(frozen=True, eq=False)
class Release:
    """What may leave one client, and how it was made.

    Attributes
    ----------
    values : Tensor or None
        A model, or what changed of it; None where nothing is to be done with it any more.
    figures : mapping of str to floats
        Sums over held-out rows.
    changes : bool
        Whether `values` are what changed.
    privacy : str or None
        The mechanism that noised it, as ``privacy=`` names it.
    placement : str or None
        Who noises a client's update, as ``privacy.placement`` names it.
    aggregation : str or None
        What hides it, as ``aggregation=`` names it.
    content : RecordDict
        The records that leave, once they are made of the values.
    """

    values: Tensor | None = None
    figures: Figures = field(default_factory=dict)
    changes: bool = False
    privacy: str | None = None
    placement: str | None = None
    aggregation: str | None = None
    content: RecordDict = field(default_factory=RecordDict)
    made: object = None

    def __post_init__(self) -> None:
        """Refuse to be made elsewhere than here."""
        if self.made is not _MADE:
            raise TypeError(f"{type(self).__name__} is made by its mechanism only")

    def carrying(self, content: RecordDict) -> Self:
        """Return the same release with the records that were made of its values."""
        return replace(self, values=None, figures={}, content=content)

    def change(self, start: Tensor) -> Tensor:
        """Return what changed since a model."""
        assert self.values is not None
        return self.values if self.changes else self.values - start


class Plain(Release):
    """Values as training or evaluation left them."""

    @classmethod
    def of(cls, values: Tensor) -> Plain:
        """Take a model."""
        return cls(values, made=_MADE)

    @classmethod
    def sums(cls, figures: Figures) -> Plain:
        """Take sums."""
        return cls(figures=figures, made=_MADE)


class Public(Release):
    """What follows from settings, policy and keys, and from no row but by public counts."""

    @classmethod
    def of(cls, content: RecordDict) -> Public:
        """Take records."""
        return cls(content=content, made=_MADE)


class Noised(Release):
    """Values with a differentially private mechanism's noise in them."""

    @classmethod
    def trained(cls, update: Update, mechanism: Mechanism, pick: Pick) -> Noised:
        """Take the model of a training that noised its every step.

        Parameters
        ----------
        update : Update
            What the training came to.
        mechanism : Mechanism
            What it was to be noised by.
        pick : callable
            Returns those of its values that travel.

        Raises
        ------
        RefusalError
            If that training was not noised by that mechanism.
        """
        if update.trained.mechanism is not mechanism:
            raise unprotected("its model was trained without the run's noise")
        return cls(pick(update.values), privacy="record_dp", made=_MADE)

    @classmethod
    def locally(
        cls, change: Tensor, start: Tensor, mechanism: ClippedUpdate, trainable: Tensor
    ) -> Noised:
        """Clip and noise a client's update; return the model that it makes of the global one.

        A `change` that is not finite counts as none: whether there was one is not to be seen.
        """
        clipped, _ = mechanism.clipped(finite_or_zero(change))
        model = start + mechanism.noised(clipped) * trainable
        return cls(model, privacy="client_dp", placement="local", made=_MADE)

    @classmethod
    def sums(cls, figures: Figures, bounded: Bounded, noise: EvaluationNoise) -> Noised:
        """Noise sums over held-out rows, of which each has a bounded part.

        Parameters
        ----------
        figures : mapping of str to floats
            The sums.
        bounded : Bounded
            Their blocks.
        noise : EvaluationNoise
            As it is in the ledger.
        """
        from task.privacy.noise import SecureNoise

        noised = noise.noised(figures, bounded, SecureNoise())
        return cls(figures=noised, privacy=EVALUATION, made=_MADE)


class Clipped(Release):
    """An update for a server that is trusted to add the noise."""

    @classmethod
    def of(cls, change: Tensor, mechanism: ClippedUpdate) -> tuple[Clipped, bool]:
        """Clip an update; return it, and whether it was not too long before.

        A `change` that is not finite counts as none.
        """
        clipped, unclipped = mechanism.clipped(finite_or_zero(change))
        made = cls(clipped, changes=True, privacy="client_dp", placement="central", made=_MADE)
        return made, unclipped


class Masked(Release):
    """Values under masks that cancel in a sum."""


class Encrypted(Release):
    """Values under a key that the server does not have."""


@dataclass(frozen=True)
class HiddenPart:
    """One client's part in a secure sum.

    Attributes
    ----------
    secure : SecureClients
        The node's.
    client : str
        Whose it is.
    request : Request
        Which sum, of which round.
    """

    secure: SecureClients
    client: str
    request: Request

    @property
    def seat(self) -> Seat | None:
        """The session of secure aggregation that it is, if it is one.

        Raises
        ------
        FedproofError
            If the client has no part in it.
        """
        return self.secure.seat(self.client, self.request.work[self.client].secure_part())

    def hide(self, inner: Release, start: Tensor, figures: Figures) -> Release:
        """Hide what changed since a model, and figures.

        Parameters
        ----------
        inner : Release
            What is hidden.
        start : Tensor
            The model that its change is taken from.
        figures : mapping of str to floats
            What is summed besides; the weight is ``num-examples``.

        Raises
        ------
        FedproofError
            If nothing may be sent.
        """
        weight = round(figures["num-examples"][0])
        return self._made(inner.change(start), weight, figures, inner)

    def hide_sums(self, inner: Release) -> Release:
        """Hide sums over held-out rows; what is too large to be summed counts as the largest.

        A refusal instead would tell that some row's loss is so large.

        Raises
        ------
        FedproofError
            If nothing may be sent.
        """
        import torch

        from task.secagg.encoding import summable

        figures = {name: [summable(v) for v in values] for name, values in inner.figures.items()}
        return self._made(torch.empty(0), 1, figures, inner)

    def noise(self, change: Tensor, mechanism: NoisyUpdate) -> Release:
        """Clip an update, add this client's share of the noise, and mask the sum of both.

        A `change` that is not finite counts as none.

        Raises
        ------
        RefusalError
            If these masks hold no noise.
        FedproofError
            If nothing may be sent.
        """
        noise = self.secure.noise
        if noise is None or noise.clip != mechanism.clip or not len(change):
            raise unprotected("its secure sum adds no noise")
        figures = {"num-examples": [1.0]}
        share = Noised(privacy="distributed_dp", made=_MADE)
        return self._made(finite_or_zero(change), 1, figures, share)

    def _made(
        self,
        change: Tensor,
        weight: int,
        figures: Figures,
        inner: Release,
    ) -> Release:
        asked = self.request.work[self.client]
        kind, number = kind_of(self.request.kind), self.request.number
        question = Question(kind, number, digest_of(asked.model), asked.secure_part())
        part, _ = self.secure.hidden(self.client, question, change.cpu(), weight, figures)
        name = self.secure.name
        hidden = {"secagg": Masked, "he": Encrypted}[name]
        return hidden(
            privacy=inner.privacy, placement=inner.placement, aggregation=name, content=part,
            made=_MADE,
        )  # fmt: skip


def finite_or_zero(change: Tensor) -> Tensor:
    """Return an update, or none at all if some value of it is NaN or infinite."""
    return (
        change if math.isfinite(float(change.double().norm())) else change.new_zeros(change.shape)
    )


def unprotected(reason: str) -> RefusalError:
    """Return what is raised for an answer that was not made as it must be."""
    return RefusalError(Refusal.unprotected, f"{reason}: nothing is sent.")
