"""The last layers stay with their client (Arivazhagan et al. 2019, FedPer)."""

from __future__ import annotations

from torch import nn

from conf.schema import Settings
from task.options import whole
from task.personalization._layers import last_layers
from task.personalization.base import Personalization


class FedPer(Personalization):
    """Each client's own head on a body for all.

    Parameters
    ----------
    layers : int
        With parameters, from the output, that are the client's own; 0: none.
    """

    def __init__(self, layers: int) -> None:
        self._layers = layers

    def private(self, module: nn.Module) -> frozenset[str]:
        """Return the names of the head."""
        return last_layers(module, self._layers)


def build(settings: Settings) -> Personalization:
    """Build from ``layers``."""
    return FedPer(whole(settings.personalization.options, "personalization.layers", 0))
