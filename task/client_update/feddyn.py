"""FedDyn's clients: a regulariser that makes their optimum the federation's.

Acar et al. 2021, "Federated Learning Based on Dynamic Regularization", Algorithm 1.
"""

from __future__ import annotations

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
    """Build from ``alpha``."""
    require_true_shares(settings)
    return FedDyn(real(settings.strategy.options, "strategy.alpha"))
