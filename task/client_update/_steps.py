"""What local steps of SGD add up to (Wang et al. 2020, FedNova, section 4)."""

from __future__ import annotations

from functools import lru_cache

from conf.errors import FedproofError
from conf.schema import Optimizer, Settings


@lru_cache(maxsize=4096)
def accumulated(steps: int, momentum: float = 0.0, shrink: float = 0.0) -> float:
    """Return ‖a‖₁, the total weight of a client's gradients in ``(x - y) / lr``.

    A gradient enters the model again with every later step through momentum, and fades as the
    proximal term pulls the model back. Without either it is the number of steps; in closed form it
    is ``(steps - m (1 - m^steps) / (1 - m)) / (1 - m)`` with momentum m alone, and
    ``(1 - (1 - s)^steps) / s`` with shrinkage s alone.

    Parameters
    ----------
    steps : int
        Local steps.
    momentum : float
        Heavy-ball momentum, starting from nothing.
    shrink : float
        Learning rate × weight of the proximal term.
    """
    total = moved = velocity = 0.0
    # The response to one gradient of 1; one that came m steps before the end has moved so far.
    for age in range(steps):
        velocity = momentum * velocity - shrink * moved + (age == 0)
        moved += velocity
        total += abs(moved)
    return total


def require_sgd(settings: Settings) -> None:
    """Refuse local training that is no weighted sum of gradients.

    Raises
    ------
    FedproofError
        If it is Adam's, or goes on with an earlier round's momentum.
    """
    name, train = settings.strategy.name, settings.train
    if train.optimizer is not Optimizer.sgd:
        raise FedproofError(
            f"strategy={name} takes a client's update for a sum of its gradients, which "
            f"train.optimizer={train.optimizer.value} makes no such: choose train.optimizer=sgd."
        )
    if train.keep_optimizer:
        raise FedproofError(
            f"strategy={name} takes a client's update for a sum of the round's gradients, which "
            "train.keep_optimizer=true mixes with earlier ones: leave it out."
        )


def require_true_shares(settings: Settings) -> None:
    """Refuse sampling that changes what clients weigh.

    Raises
    ------
    FedproofError
        Then.
    """
    if settings.sampling.name == "by_size":
        raise FedproofError(
            f"strategy={settings.strategy.name} weighs each client by its share of the federation, "
            "which sampling=by_size changes: choose sampling=uniform."
        )
