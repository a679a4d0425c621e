"""One client's part of one round: ClientUpdate in McMahan et al. 2017, Algorithm 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from conf.errors import FedproofError
from conf.schema import TrainConfig
from task.base import Examples
from task.flat import FlatModel
from task.objectives import Objective
from task.privacy.dpsgd import CLIP, Mechanism, train_privately
from task.training import Memory, Trained, train

Vectors = Mapping[str, Tensor]
"""What travels beside models, by name: vectors of shape (p,), p trainable parameters."""
OWN = "update."
"""Begins the names of what a strategy's clients keep; the rest is the optimiser's."""


@dataclass(frozen=True)
class Work:
    """What one client has in one round.

    Attributes
    ----------
    model : FlatModel
        Holds the global model.
    data : Examples
        Training rows; at least one.
    objective, config
        What is learned, and how.
    seed : int
        Of this client in this round.
    proximal_mu : float
        FedProx's.
    mechanism : Mechanism or None
        How steps are protected, if they must be.
    told : mapping of str to Tensor
        Vectors that the server sent beside the model.
    kept : dict of str to Tensor
        What the client kept from its last round.
    """

    model: FlatModel
    data: Examples
    objective: Objective
    config: TrainConfig
    seed: int
    proximal_mu: float = 0.0
    mechanism: Mechanism | None = None
    told: Vectors = field(default_factory=dict)
    kept: Memory = field(default_factory=dict)

    def fit(self, **terms: Any) -> Trained:
        """Train the model in place, privately if it must be.

        Parameters
        ----------
        **terms
            Further keywords of `task.training.train` and `task.privacy.dpsgd.train_privately`.
        """
        memory = {key: value for key, value in self.kept.items() if not key.startswith(OWN)}
        told: dict[str, Any] = {
            "seed": self.seed, "proximal_mu": self.proximal_mu, "memory": memory
        } | terms  # fmt: skip
        if self.mechanism is None:
            return train(self.model, self.data, self.objective, self.config, **told)
        return train_privately(
            self.model, self.data, self.objective, self.config, self.mechanism, **told
        )

    def own(self, name: str) -> Tensor | None:
        """Return what `keeping` kept under this name in the client's last round, if any."""
        found = self.kept.get(OWN + name)
        return None if found is None else found.to(self.model.vector.device)

    def vector(self, name: str) -> Tensor | None:
        """Return a vector that the server sent beside the model, if it did.

        Raises
        ------
        FedproofError
            If it does not fit the model.
        """
        found = self.told.get(name)
        if found is not None and found.shape != self.model.vector.shape:
            raise FedproofError(f"the server's '{name}' does not fit the model.")
        return found

    def keeping(self, trained: Trained, **own: Tensor) -> Trained:
        """Return what training did, with what the client shall keep beside the optimiser's."""
        kept = {
            key: value for key, value in trained.memory.items()
            if self.config.keep_optimizer or key == CLIP
        }  # fmt: skip
        mine = {OWN + key: value.detach().clone() for key, value in own.items()}
        return replace(trained, memory=kept | mine)


@dataclass(frozen=True)
class Update:
    """What a client's part of a round came to.

    Attributes
    ----------
    values : Tensor, shape (s,)
        The whole state that is to leave, in the order of `FlatModel.values`.
    trained : Trained
        What training did; its memory is what the client keeps.
    sent : mapping of str to Tensor
        Vectors that go to the server beside the model.
    number : int
        Which of the server's models was trained, where it has several.
    """

    values: Tensor
    trained: Trained
    sent: Vectors = field(default_factory=dict)
    number: int = 0


class ClientUpdate:
    """FedAvg's: local training from the global model. Other strategies' derive from it.

    Attributes
    ----------
    keeps : bool
        Whether clients keep something from round to round, whatever ``train.keep_optimizer`` says.
    stackable : bool
        Whether `task.stacked.train_stacked` does the same for several clients at once.
    sends : tuple of str
        Names of the vectors that every client sends beside its model.
    """

    keeps: bool = False
    stackable: bool = True
    sends: tuple[str, ...] = ()

    def check(self, module: nn.Module) -> None:
        """Refuse a model that the strategy cannot train, before the first round.

        Raises
        ------
        FedproofError
            With the reason.
        """

    def run(self, work: Work) -> Update:
        """Train one client."""
        trained = work.fit()
        return Update(work.model.values(), trained)
