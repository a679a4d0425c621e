"""Trust in what points where the server's own clean rows point (Cao et al. 2021, FLTrust)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from conf.errors import FedproofError
from conf.schema import Engine, Settings
from server_app.strategies._robust import Robust
from task.arrays import values_of
from task.base import Examples
from task.flat import FlatModel, build_model
from task.options import whole
from task.robust.fltrust import fltrust
from task.seeding import derive
from task.source import load_task, root_examples
from task.training import train


class FLTrust(Robust):
    """Trains on a root set at the server in each round, and trusts clients by the cosine to that.

    Parameters
    ----------
    rows : int
        How many the root set has in a simulation, where it is drawn from the clients' training
        rows, as in section VI-A.4 of the paper.
    path : Path or None
        Rows of the server's own, which a deployment needs.
    """

    def __init__(self, rows: int, path: Path | None) -> None:
        super().__init__()
        self._rows, self._path = rows, path
        self._shared: Mapping[str, Any] = {}
        self._settings: Settings | None = None
        self._examples: Examples | None = None

    def inform(self, settings: Settings) -> None:
        """Learn what is trained, and how."""
        super().inform(settings)
        if settings.federation.engine is Engine.remote and self._path is None:
            raise FedproofError(
                "strategy=fltrust needs strategy.path=FILE, clean rows of the server's own in the "
                "task's format, where clients keep theirs."
            )
        self._settings = settings

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember what the clients agreed on, which makes rows tensors."""
        self._shared = getattr(grid, "header", {}).get("shared", {})
        return super().configure_train(server_round, arrays, config, grid)

    def rule(self, updates: Tensor, number: int) -> Tensor:
        """Train on the root set, and weigh by trust."""
        aggregate, trust = fltrust(updates, self._root_update(number))
        self.keep(len(updates), trust.nonzero().flatten().tolist())
        return aggregate

    def _root_update(self, number: int) -> Tensor:
        settings, before = self._settings, self._before
        assert settings is not None
        assert before is not None
        if self._examples is None:
            self._examples = root_examples(settings, self._shared, self._rows, self._path)
        task = load_task(settings)
        model = FlatModel(build_model(settings, task.spec(self._shared)))
        model.load({key: values_of(array) for key, array in before.items()})
        start = model.values().clone()
        seed = derive(self._seed, "root", number)
        train(model, self._examples, task.objective(self._shared), settings.train, seed=seed)
        return model.values() - start


def build(options: Mapping[str, Any]) -> Strategy:
    """Build from ``rows`` and ``path``."""
    path = None if options["path"] is None else Path(str(options["path"])).expanduser()
    return FLTrust(whole(options, "strategy.rows", 1), path)
