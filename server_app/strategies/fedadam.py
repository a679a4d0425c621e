"""Adam as the server's optimiser (Reddi et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAdam, Strategy

from server_app.strategies._common import ON_CLIENTS
from task.options import real

SUM_SUFFICES = True


class UncorrectedFedAdam(FedAdam):
    """FedAdam as Reddi et al. 2021 state it in Algorithm 2: without bias correction.

    Flower's multiplies the rate by sqrt(1 - beta_2^(t+1)) / (1 - beta_1^(t+1)), after Kingma and
    Ba 2015; published FedAdam rates usually assume no such factor.
    """

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate with the rate divided by Flower's factor."""
        eta, step = self.eta, server_round + 1.0
        self.eta = eta * (1 - self.beta_1**step) / (1 - self.beta_2**step) ** 0.5
        try:
            return super().aggregate_train(server_round, replies)
        finally:
            self.eta = eta


def build(options: Mapping[str, Any]) -> Strategy:
    """Build Flower's FedAdam, with or without bias correction."""
    kind = FedAdam if options["bias_correction"] else UncorrectedFedAdam
    return kind(
        eta=real(options, "strategy.eta"),
        beta_1=real(options, "strategy.beta_1", below=1),
        beta_2=real(options, "strategy.beta_2", below=1),
        tau=real(options, "strategy.tau"),
        **ON_CLIENTS,
    )
