"""Several models; each client takes the one that fits it best (Ghosh et al. 2020, IFCA, Alg. 1)."""

from __future__ import annotations

from conf.errors import FedproofError
from conf.schema import Settings
from task.options import whole
from task.personalization.base import Personalization


class IFCA(Personalization):
    """Clients choose by the loss on their training rows, anew each time; nothing is kept.

    The server gives each model the answers of those that chose it (model averaging, option II).

    Parameters
    ----------
    clusters : int
        Models.
    """

    keeps = False
    compares = False
    one_training = False

    def __init__(self, clusters: int) -> None:
        self.clusters = clusters


def build(settings: Settings) -> Personalization:
    """Build from ``clusters``.

    Raises
    ------
    FedproofError
        If the server could not see which model an answer belongs to.
    """
    if settings.aggregation.name != "none":
        raise FedproofError(
            "personalization=ifca needs to see which model each client chose, which "
            f"aggregation={settings.aggregation.name} hides: leave aggregation out."
        )
    return IFCA(whole(settings.personalization.options, "personalization.clusters", 1))
