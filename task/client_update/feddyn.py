"""FedDyn's clients: a regulariser that makes their optimum the federation's.

Acar et al. 2021, "Federated Learning Based on Dynamic Regularization", Algorithm 1.
"""

from __future__ import annotations

from conf.errors import FedproofError
from conf.schema import Settings
from task.client_update._steps import require_true_shares
from task.client_update.base import ClientUpdate, Update, Work
from task.options import real

GRADIENT = "gradient"


class FedDyn(ClientUpdate):
    """Minimises ``L_k(w) - <g_k, w> + alpha/2 ‖w - w_global‖²``; g_k stays with the client."""

    keeps = True
    stackable = False

    def __init__(self, alpha: float) -> None:
        self._alpha = alpha

    def run(self, work: Work) -> Update:
        """Train one client."""
        start = work.model.vector.detach().clone()
        gradient = work.own(GRADIENT)
        drift = None if gradient is None else -gradient
        trained = work.fit(drift=drift, proximal_mu=self._alpha)
        change = (start - work.model.vector.detach()) * self._alpha
        kept = change if gradient is None else gradient + change
        return Update(work.model.values(), work.keeping(trained, **{GRADIENT: kept}))


def build(settings: Settings) -> ClientUpdate:
    """Build from ``alpha``.

    Raises
    ------
    FedproofError
        If the server reads other updates than clients made: both add them up, and what they differ
        by would pull all later models away from the optimum.
    """
    require_true_shares(settings)
    if settings.compression.name != "none":
        raise FedproofError(
            "strategy=feddyn adds up updates at both ends, which compression="
            f"{settings.compression.name} lets part for good: leave it out, or choose "
            "strategy=scaffold."
        )
    return FedDyn(real(settings.strategy.options, "strategy.alpha"))
