"""SCAFFOLD's clients: each gradient is corrected by how the client's differ from everybody's.

Karimireddy et al. 2020, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning",
Algorithm 1 with option II for the control variates.
"""

from __future__ import annotations

import torch

from conf.schema import Settings
from task.client_update._steps import accumulated, require_sgd, require_true_shares
from task.client_update.base import ClientUpdate, Update, Work

CONTROL = "control"


class Scaffold(ClientUpdate):
    """Steps along ``g - c_i + c``; sends by how much its own variate c_i changed.

    Option II takes ``(x - y) / (K lr)`` for the mean of K corrected gradients. With momentum it is
    ten times that at 0.9, and the variates with it, so that they overshoot from round to round;
    here the divisor is what the gradients truly weigh (`_steps.accumulated`), and K without
    momentum.
    """

    keeps = True
    stackable = False
    sends = (CONTROL,)

    def run(self, work: Work) -> Update:
        """Train one client."""
        start = work.model.vector.detach().clone()
        everybodys, own = work.vector(CONTROL), work.own(CONTROL)
        zero = torch.zeros_like(start)
        common = zero if everybodys is None else everybodys
        mine = zero if own is None else own
        known = everybodys is not None or own is not None
        # Without a term to add, training is FedAvg's to the last bit.
        trained = work.fit(drift=common - mine if known else None)
        covered = work.config.lr * accumulated(trained.steps, work.config.momentum)
        change = (start - work.model.vector.detach()) / covered - common
        kept = work.keeping(trained, **{CONTROL: mine + change})
        return Update(work.model.values(), kept, {CONTROL: change})


def build(settings: Settings) -> ClientUpdate:
    """Build it for plain SGD, with or without momentum."""
    require_sgd(settings)
    require_true_shares(settings)
    return Scaffold()
