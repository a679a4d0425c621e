"""Nothing is shared: what clients reach alone, the limit that the others are held against."""

from __future__ import annotations

from torch import nn

from conf.errors import FedproofError
from conf.schema import Settings
from task.personalization.base import Personalization


class Local(Personalization):
    """All of the model is the client's own."""

    compares = False

    def private(self, module: nn.Module) -> frozenset[str]:
        """Return every name."""
        return frozenset(module.state_dict())


def build(settings: Settings) -> Personalization:
    """Build it.

    Raises
    ------
    FedproofError
        If what is not sent should be aggregated, or hidden.
    """
    for group, name, plain in (
        ("strategy", settings.strategy.name, "fedavg"),
        ("aggregation", settings.aggregation.name, "none"),
    ):
        if name != plain:
            raise FedproofError(
                f"personalization=local sends nothing for {group}={name} to work on: choose "
                f"{group}={plain}."
            )
    return Local()
