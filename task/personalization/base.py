"""What of a model is each client's own, and what a client does with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from conf.errors import FedproofError
from task.client_update.base import ClientUpdate, Update, Work
from task.flat import FlatModel
from task.privacy.dpsgd import CLIP
from task.training import Memory

OWN = "own/"
"""Before the names of what a client keeps for its personal model."""
_MODEL = f"{OWN}model/"


class Personalization:
    """One way to personal models. Its methods are those of a model with a private part.

    Attributes
    ----------
    clusters : int
        How many models the server has in place of one; 0: it has one.
    keeps : bool
        Whether clients keep something of their own from round to round.
    partial : bool
        Whether what a client sends is not the whole of the one global model.
    compares : bool
        Whether there is a global model to hold the personal ones against.
    one_training : bool
        Whether a round's own training is all that a client's rows are used for.
    """

    clusters: int = 0
    keeps: bool = True
    partial: bool = True
    compares: bool = True
    one_training: bool = True

    def private(self, module: nn.Module) -> frozenset[str]:
        """Return the names in the state dict that never leave a client.

        Raises
        ------
        FedproofError
            If the model does not have what the settings want.
        """
        return frozenset()

    def train(self, inner: ClientUpdate, work: Work) -> tuple[Update, Memory]:
        """Train one client in one round.

        Parameters
        ----------
        inner : ClientUpdate
            The clients' half of the strategy.
        work : Work
            The model holds what the server sent and what of it is the client's own; what was
            kept holds both the strategy's and the client's own.

        Returns
        -------
        Update, dict of str to Tensor
            What the strategy's training came to, and what the client keeps of its own.
        """
        update = inner.run(work)
        state = work.model.module.state_dict()
        return update, remember({key: state[key] for key in self.private(work.model.module)})

    def personalize(self, work: Work) -> None:
        """Make the client's personal model of what `work.model` holds; rows may be none."""

    def wrap(self, inner: ClientUpdate) -> ClientUpdate:
        """Return what clients do in a round, on top of the strategy."""
        return PersonalUpdate(inner, self)


class PersonalUpdate(ClientUpdate):
    """A strategy's training and a client's own, which share one memory.

    Parameters
    ----------
    inner : ClientUpdate
        The clients' half of the strategy.
    method : Personalization
        What becomes of it.
    """

    stackable = False

    def __init__(self, inner: ClientUpdate, method: Personalization) -> None:
        self._inner = inner
        self._method = method
        self.keeps = inner.keeps or method.keeps

    def run(self, work: Work) -> Update:
        """Train one client."""
        update, own = self._method.train(_Forgetful(self._inner), work)
        if not all(torch.isfinite(value).all() for value in own.values()):
            raise FedproofError("its personal model holds NaN or infinity: lower train.lr.")
        theirs = update.trained.memory
        if not (work.config.keep_optimizer or self._inner.keeps):
            # Kept because something is, it must not make optimisers go on.
            theirs = {key: value for key, value in theirs.items() if key == CLIP}
        return replace(update, trained=replace(update.trained, memory={**theirs, **own}))


class _Forgetful(ClientUpdate):
    """A strategy's training, which is not shown what the client keeps of its own."""

    def __init__(self, inner: ClientUpdate) -> None:
        self._inner = inner

    def run(self, work: Work) -> Update:
        theirs = {key: value for key, value in work.kept.items() if not key.startswith(OWN)}
        return self._inner.run(replace(work, kept=theirs))


def remember(state: Mapping[str, Tensor]) -> Memory:
    """Return part of a state dict as a client keeps it."""
    return {_MODEL + key: value.detach().cpu().clone() for key, value in state.items()}


def recalled(kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what part of a state dict a client has kept; none if it never trained."""
    return {k.removeprefix(_MODEL): v for k, v in kept.items() if k.startswith(_MODEL)}


def load_own(model: FlatModel, kept: Mapping[str, Tensor]) -> None:
    """Copy the part of a state dict that a client has kept into a model."""
    state = model.module.state_dict()
    for key, value in recalled(kept).items():
        state[key].copy_(value)
