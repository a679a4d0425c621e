"""Normalisation layers stay with their client (Li et al. 2021, FedBN, Algorithm 1).

The paper's models have BatchNorm, whose statistics stay as well; of GroupNorm and LayerNorm these
are scales and shifts.
"""

from __future__ import annotations

from torch import nn

from conf.errors import FedproofError
from conf.schema import Settings
from task.personalization._layers import normalisation
from task.personalization.base import Personalization


class FedBN(Personalization):
    """Each client's own normalisation."""

    def private(self, module: nn.Module) -> frozenset[str]:
        """Return what normalisation layers learn and count."""
        names = normalisation(module)
        if not names:
            raise FedproofError(
                "personalization=fedbn keeps normalisation layers, and the model has none: choose "
                "another model, or personalization=fedper."
            )
        return names


def build(settings: Settings) -> Personalization:
    """Build it; there is nothing to set."""
    return FedBN()
