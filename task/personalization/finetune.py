"""The global model, trained a little on the client's own rows before it is used."""

from __future__ import annotations

from dataclasses import replace

from conf.schema import Settings
from task.client_update.base import ClientUpdate, Work
from task.options import real, whole
from task.personalization.base import Personalization


class FineTune(Personalization):
    """A few local steps from the global model; the next ones start from the next global model.

    Parameters
    ----------
    steps : int
        0: the global model as it is.
    lr : float or None
        Learning rate; None: ``train.lr``.
    """

    keeps = False
    partial = False
    one_training = False

    def __init__(self, steps: int, lr: float | None) -> None:
        self._steps = steps
        self._lr = lr

    def personalize(self, work: Work) -> None:
        """Take the steps; a client without training rows has the global model."""
        if self._steps and len(work.data):
            config = replace(work.config, steps=self._steps, lr=self._lr or work.config.lr)
            replace(work, config=config, kept={}).fit()

    def wrap(self, inner: ClientUpdate) -> ClientUpdate:
        """Return the strategy's: rounds are as they are."""
        return inner


def build(settings: Settings) -> Personalization:
    """Build from ``steps`` and ``lr``."""
    options = settings.personalization.options
    lr = None
    if options["lr"] is not None:
        lr = real(options, "personalization.lr", positive=True)
    return FineTune(whole(options, "personalization.steps", 0), lr)
