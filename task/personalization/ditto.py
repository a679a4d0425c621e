"""A model of each client's own, drawn toward the global one (Li et al. 2021, Ditto, Alg. 1)."""

from __future__ import annotations

from dataclasses import replace

from conf.schema import Settings
from task.client_update.base import ClientUpdate, Update, Work
from task.options import real
from task.personalization.base import Personalization, load_own, remember
from task.seeding import derive
from task.training import Memory


class Ditto(Personalization):
    """Minimises, on the client's rows, its loss + lambda/2 · ‖v - w‖² over v, the w being global.

    What is sent is as without: v has no part in it. A client's first v is the w that it gets.

    Parameters
    ----------
    weight : float
        Lambda.
    """

    partial = False
    one_training = False

    def __init__(self, weight: float) -> None:
        self._weight = weight

    def train(self, inner: ClientUpdate, work: Work) -> tuple[Update, Memory]:
        """Train as the strategy says, then the client's own model."""
        before = work.model.state()
        start = work.model.vector.detach().clone()
        update = inner.run(work)
        update = replace(update, values=update.values.clone())
        # BatchNorm's statistics are no part of the vector.
        work.model.module.load_state_dict(before)
        load_own(work.model, work.kept)
        own = replace(work, seed=derive(work.seed, "ditto"), kept={}, proximal_mu=self._weight)
        own.fit(anchor=start)
        return update, remember(work.model.module.state_dict())

    def personalize(self, work: Work) -> None:
        """Take the client's own model; one that never trained has the global one."""
        load_own(work.model, work.kept)


def build(settings: Settings) -> Personalization:
    """Build from ``lambda``."""
    return Ditto(real(settings.personalization.options, "personalization.lambda"))
