"""Fairer losses across clients (Li et al. 2020, q-FFL)."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import QFedAvg, Strategy

from server_app.strategies._common import ON_CLIENTS
from task.options import real


class Quick(QFedAvg):
    """Flower's, which looks for garbage in all of this process's memory once for each client."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate as Flower does, with what is in memory already out of the collector's sight."""
        gc.freeze()
        try:
            return super().aggregate_train(server_round, replies)
        finally:
            gc.unfreeze()


def build(options: Mapping[str, Any]) -> Strategy:
    """Build Flower's QFedAvg."""
    return Quick(
        client_learning_rate=real(options, "strategy.client_learning_rate", positive=True),
        q=real(options, "strategy.q"),
        train_loss_key="loss",
        **ON_CLIENTS,
    )
