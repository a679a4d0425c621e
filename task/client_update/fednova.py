"""FedNova's clients: FedAvg's, with local steps that the server can undo."""

from __future__ import annotations

from conf.schema import Settings
from task.client_update._steps import require_sgd
from task.client_update.base import ClientUpdate


def build(settings: Settings) -> ClientUpdate:
    """Build it for plain SGD, with or without momentum."""
    require_sgd(settings)
    return ClientUpdate()
