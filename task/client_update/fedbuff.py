"""FedBuff's clients: FedAvg's, from models of several rounds at once."""

from __future__ import annotations

from conf.errors import FedproofError
from conf.schema import Engine, Settings
from task.client_update.base import ClientUpdate


class FedBuff(ClientUpdate):
    """Trains one by one, for stacked clients would have to start from one model."""

    stackable = False


def build(settings: Settings) -> ClientUpdate:
    """Build it for simulations.

    Raises
    ------
    FedproofError
        For SuperNodes, or a way of sampling that its schedule knows nothing of.
    """
    if settings.federation.engine is Engine.remote:
        raise FedproofError(
            "strategy=fedbuff simulates how fast clients are, and SuperNodes have speeds of their "
            "own: choose federation=local, or strategy=fedavg."
        )
    if settings.sampling.name != "uniform":
        raise FedproofError(
            f"strategy=fedbuff decides itself who trains when: leave out "
            f"sampling={settings.sampling.name}."
        )
    return FedBuff()
