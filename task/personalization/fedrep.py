"""A head for each client on a representation for all (Collins et al. 2021, FedRep, Alg. 1)."""

from __future__ import annotations

from dataclasses import replace

from conf.errors import FedproofError
from conf.schema import Settings
from task.client_update.base import ClientUpdate, Update, Work
from task.options import whole
from task.personalization._layers import frozen
from task.personalization.base import Personalization
from task.personalization.fedper import FedPer
from task.seeding import derive
from task.training import Memory


class FedRep(FedPer):
    """Each client fits its head to the representation it got, then the representation to its head.

    Parameters
    ----------
    layers : int
        With parameters, from the output, that are the head; 0: none.
    head_epochs : int
        Local epochs of the head; the representation has ``train.epochs``, or steps.
    """

    one_training = False

    def __init__(self, layers: int, head_epochs: int) -> None:
        super().__init__(layers)
        self._epochs = head_epochs

    def train(self, inner: ClientUpdate, work: Work) -> tuple[Update, Memory]:
        """Train the head, then the rest."""
        module = work.model.module
        head = self.private(module)
        body = set(module.state_dict()) - head
        if head:
            config = replace(work.config, epochs=self._epochs, steps=None)
            seed = derive(work.seed, "head")
            with frozen(module, body):
                replace(work, config=config, seed=seed, proximal_mu=0.0, kept={}).fit()
        with frozen(module, head):
            return super().train(inner, work)


def build(settings: Settings) -> Personalization:
    """Build from ``layers`` and ``head_epochs``."""
    options = settings.personalization.options
    if settings.train.weight_decay:
        raise FedproofError(
            "personalization=fedrep trains part of the model at a time, and train.weight_decay "
            "shrinks all of it: leave train.weight_decay out."
        )
    layers = whole(options, "personalization.layers", 0)
    return FedRep(layers, whole(options, "personalization.head_epochs", 1))
