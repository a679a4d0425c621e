"""What a client does with the global model in a round, by strategy; FedAvg's unless named here."""

from __future__ import annotations

from conf.schema import Settings
from task.client_update.base import ClientUpdate
from task.registry import find, names


def update_of(settings: Settings) -> ClientUpdate:
    """Return the clients' half of the settings' strategy: `task.client_update.STRATEGY`, if any.

    Raises
    ------
    FedproofError
        If its settings are wrong.
    """
    name = settings.strategy.name
    if name not in names(__name__):
        return ClientUpdate()
    update = find(__name__, name).build(settings)
    assert isinstance(update, ClientUpdate)
    return update
