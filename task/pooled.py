"""Training on everybody's rows at once, which only a simulation can: the centralised baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from conf.schema import Settings
from task.base import Examples
from task.device import device_of
from task.evaluation import Evaluated, evaluate
from task.flat import FlatModel, State, build_model
from task.seeding import derive
from task.source import DataSource
from task.training import train
from task.witness import choose_network


class Pooled:
    """The rows of some clients in one place, each client's prepared as in the federated run.

    Parameters
    ----------
    settings : Settings
        Of the run, whose rows are all on this machine.
    shared : mapping
        What the clients agreed on.
    """

    def __init__(self, settings: Settings, shared: Mapping[str, Any]) -> None:
        self._settings = settings
        self._shared = shared
        self._source = DataSource(settings)
        self._device = device_of(settings.train.device)

    def train(self, start: State, clients: Sequence[str], steps: int) -> FlatModel:
        """Train the run's model on the training rows of `clients` for so many steps."""
        settings = self._settings
        parts = [self.rows(client)[0] for client in clients]
        rows = Examples(torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts]))
        spec = self._source.task.spec(self._shared)
        objective = self._source.task.objective(self._shared)
        network = choose_network(
            lambda: build_model(settings, spec), spec, objective, settings.train, self._device
        )
        model = FlatModel(network.module)
        model.load(start)
        config = replace(settings.train, steps=steps)
        seed = derive(settings.seed, "pooled")
        train(model, rows.to(self._device), objective, config, seed=seed)
        return model

    def evaluate(self, model: FlatModel, client: str) -> Evaluated:
        """Evaluate a model on a client's held-out rows."""
        held_out = self.rows(client)[1].to(self._device)
        objective = self._source.task.objective(self._shared)
        return evaluate(model.module, held_out, objective)

    def rows(self, client: str) -> tuple[Examples, Examples]:
        """Return a client's training and held-out rows."""
        data = self._source.data(client, self._shared)
        return data.train, data.test
