"""What a client does with the global model in a round, by strategy; FedAvg's unless named here."""

from __future__ import annotations

from conf.errors import FedproofError
from conf.schema import Settings
from task.client_update.base import ClientUpdate
from task.options import real
from task.privacy.policy import mechanism_of
from task.registry import find, names


def update_of(settings: Settings) -> ClientUpdate:
    """Return the clients' half of the settings' strategy: `task.client_update.STRATEGY`, if any.

    Raises
    ------
    FedproofError
        If its settings are wrong, or it would send what the run's privacy or secure sums do not
        protect.
    """
    name = settings.strategy.name
    if name not in names(__name__):
        return ClientUpdate()
    update = find(__name__, name).build(settings)
    assert isinstance(update, ClientUpdate)
    privacy = mechanism_of(settings)
    if update.sends and privacy is not None and privacy.unit == "client":
        raise FedproofError(
            f"strategy={name} sends '{update.sends[0]}' beside the model, which "
            f"privacy={settings.privacy.name} neither clips nor noises: choose privacy=record_dp, "
            "or another strategy."
        )
    hidden = settings.aggregation.name
    if update.sends and hidden != "none":
        raise FedproofError(
            f"strategy={name} sends '{update.sends[0]}' of each client beside its update, which "
            f"aggregation={hidden} hides: choose another strategy."
        )
    return update


def proximal_mu(settings: Settings) -> float:
    """Return the weight of the proximal term in local training; 0 where the strategy has none.

    Raises
    ------
    FedproofError
        If it is no number from 0 on.
    """
    options = settings.strategy.options
    return real(options, "strategy.proximal_mu") if "proximal_mu" in options else 0.0
