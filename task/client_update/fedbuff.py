"""FedBuff's clients: FedAvg's, from models of several rounds at once."""

from __future__ import annotations

from conf.errors import FedproofError
from conf.schema import Engine, Settings
from task.client_update.base import ClientUpdate
from task.options import choice, whole


class FedBuff(ClientUpdate):
    """Trains one by one, for stacked clients would have to start from one model."""

    stackable = False


def is_live(settings: Settings) -> bool:
    """Tell whether answers count as they come, and not as a simulated clock says.

    Raises
    ------
    FedproofError
        If the engine has no such clock.
    """
    clock = choice(settings.strategy.options, "strategy.clock", ("auto", "simulated", "real"))
    engine = settings.federation.engine
    if clock == "simulated" and engine is Engine.remote:
        raise FedproofError(
            "strategy.clock=simulated says how fast clients are, and SuperNodes have speeds of "
            "their own: leave it out, or choose federation=local."
        )
    if clock == "real" and engine is Engine.local:
        raise FedproofError(
            "strategy.clock=real needs nodes that answer on their own, and federation=local has "
            "workers that share a round: leave it out, or choose federation=flower."
        )
    return clock == "real" or engine is Engine.remote


def build(settings: Settings) -> ClientUpdate:
    """Build it.

    Raises
    ------
    FedproofError
        For a clock that the engine has not, rounds that can never be full, a way of sampling
        that its schedule knows nothing of, or what takes answers for changes of the present model.
    """
    is_live(settings)
    for group in ("compression", "defence", "attack", "personalization"):
        chosen = getattr(settings, group).name
        if chosen != "none":
            raise FedproofError(
                f"{group}={chosen} goes by how a client changed this round's model, and "
                "strategy=fedbuff has clients change older ones: leave one of them out."
            )
    buffer = whole(settings.strategy.options, "strategy.buffer", 1)
    least = settings.federation.min_clients
    if least > buffer:
        raise FedproofError(
            f"federation.min_clients={least} can never be met by strategy.buffer={buffer}: raise "
            "the buffer."
        )
    if settings.sampling.name != "uniform":
        raise FedproofError(
            f"strategy=fedbuff decides itself who trains when: leave out "
            f"sampling={settings.sampling.name}."
        )
    return FedBuff()
