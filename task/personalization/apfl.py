"""A mixture of the global model and one of the client's own (Deng et al. 2020, APFL, Alg. 1)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from conf.errors import FedproofError
from conf.schema import Optimizer, Settings
from task.base import Examples
from task.client_update.base import ClientUpdate, Update, Work
from task.flat import FlatModel
from task.objectives import Objective
from task.options import real
from task.personalization.base import OWN, Personalization, load_own, remember
from task.seeding import derive
from task.training import Memory

ALPHA = f"{OWN}alpha"
_BATCH = 512


class APFL(Personalization):
    """Uses alpha · v + (1 - alpha) · w: v is the client's own, w the global model.

    The paper takes steps of w and v in turn; here those of w come first, as the strategy takes
    them, and those of v and alpha after, at the w that they led to. So any strategy may train w.

    Parameters
    ----------
    alpha : float
        Share of its own that a client begins with.
    adaptive : bool
        Whether it takes a gradient step a round, within [0, 1].
    """

    partial = False
    one_training = False

    def __init__(self, alpha: float, *, adaptive: bool) -> None:
        self._alpha = alpha
        self._adaptive = adaptive

    def train(self, inner: ClientUpdate, work: Work) -> tuple[Update, Memory]:
        """Train as the strategy says, then alpha and v."""
        model = work.model
        load, before = model.module.load_state_dict, model.state()
        update = inner.run(work)
        update = replace(update, values=update.values.clone())
        w = model.vector.detach().clone()
        load(before)
        load_own(model, work.kept)
        v = model.vector.detach().clone()
        alpha = self._share(work, v, w)
        if alpha:
            mixed = alpha * v + (1 - alpha) * w
            model.vector.data.copy_(mixed)
            # A step of v by alpha · gradient moves the mixture by alpha² · gradient.
            config = replace(work.config, lr=work.config.lr * alpha**2)
            seed = derive(work.seed, "apfl")
            replace(work, config=config, seed=seed, proximal_mu=0.0, kept={}).fit()
            v += (model.vector.detach() - mixed) / alpha
        model.vector.data.copy_(v)
        return update, remember(model.module.state_dict()) | {ALPHA: torch.tensor(alpha)}

    def personalize(self, work: Work) -> None:
        """Mix; a client that never trained has the global model."""
        model = work.model
        w = model.vector.detach().clone()
        load_own(model, work.kept)
        alpha = float(work.kept.get(ALPHA, 0.0))
        model.vector.data.mul_(alpha).add_(w, alpha=1 - alpha)

    def _share(self, work: Work, v: Tensor, w: Tensor) -> float:
        """Return alpha, after the round's step if there are any (eq. 11)."""
        alpha = float(work.kept.get(ALPHA, self._alpha))
        if not self._adaptive:
            return alpha
        work.model.vector.data.copy_(alpha * v + (1 - alpha) * w)
        slope = float((v - w) @ gradient(work.model, work.data, work.objective))
        return min(1.0, max(0.0, alpha - work.config.lr * slope))


def gradient(model: FlatModel, rows: Examples, objective: Objective) -> Tensor:
    """Return the gradient of the mean loss of all rows, shape (p,)."""
    model.module.eval()
    model.zero_grad()
    for x, y in zip(torch.split(rows.x, _BATCH), torch.split(rows.y, _BATCH), strict=True):
        loss = objective.loss(model.module(x), y).mean() * (len(y) / len(rows))
        loss.backward()  # type: ignore[no-untyped-call]
    return model.gradient


def build(settings: Settings) -> Personalization:
    """Build from ``alpha`` and ``adaptive``.

    Raises
    ------
    FedproofError
        If alpha is no share, or steps are not gradients times the learning rate.
    """
    options = settings.personalization.options
    alpha = real(options, "personalization.alpha", most=1)
    if settings.train.optimizer is not Optimizer.sgd or settings.train.weight_decay:
        raise FedproofError(
            "personalization=apfl takes steps of SGD: choose train.optimizer=sgd without "
            "train.weight_decay."
        )
    return APFL(alpha, adaptive=bool(options["adaptive"]))
