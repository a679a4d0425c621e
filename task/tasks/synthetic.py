"""Made-up rows for any number of clients, to size machines and to measure the engine.

No row exists before its client is sampled, so a million clients cost next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.base import ClientData, Examples, Json, ModelSpec, Pool
from task.base import Task as BaseTask
from task.objectives import MultiClass, Objective
from task.options import whole
from task.seeding import generator

Indices = NDArray[np.int64]
_NOISE = 1 << 20
SIGNAL = 0.1
"""Length of a class's pattern per feature, against noise of 1."""


@dataclass(frozen=True)
class Positions:
    """Rows that are known by their positions only."""

    positions: range | Indices

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, indices: Indices) -> Positions:
        """Return the rows at `indices`, in that order."""
        if isinstance(self.positions, range):
            return Positions(indices)
        return Positions(self.positions[indices])


class Blocks(Mapping[str, Indices]):
    """Clients of equal size, each with the next rows; names and rows are made when asked for."""

    def __init__(self, clients: int, rows: int) -> None:
        self._clients = clients
        self._rows = rows
        self._digits = len(str(clients - 1))

    def __len__(self) -> int:
        return self._clients

    def __iter__(self) -> Iterator[str]:
        return (f"client-{i:0{self._digits}d}" for i in range(self._clients))

    def __getitem__(self, client: str) -> Indices:
        name, _, digits = client.partition("-")
        number = int(digits) if name == "client" and digits.isdecimal() else self._clients
        if number >= self._clients or len(digits) != self._digits:
            raise KeyError(client)
        return np.arange(number * self._rows, (number + 1) * self._rows)


class Task(BaseTask[Positions]):
    """Classify noise that holds a faint pattern of its class.

    ``task.clients`` clients have ``task.rows`` training and ``task.test_rows`` held-out rows of
    ``task.shape`` each, of ``task.classes`` classes; ``task.data_seed`` fixes all of them.
    """

    sources = "synthetic: made up when asked for"

    def load(self, path: Path | None) -> Pool[Positions]:
        """Return as many rows as the clients have, none of them made yet."""
        if path is not None:
            raise FedproofError(
                f"task=synthetic makes its rows up and reads none: leave out task.path={path}."
            )
        clients = whole(self.config.options, "task.clients", 1)
        test = np.arange(self._per_client) >= self._train
        return Pool(
            Positions(range(clients * self._per_client)),
            test=np.tile(test, clients),
            groups=Blocks(clients, self._per_client),
        )

    def spec(self, shared: Mapping[str, Any]) -> ModelSpec:
        """Return the shape and the number of classes that the settings say."""
        return ModelSpec(self._shape, self._classes)

    def objective(self, shared: Mapping[str, Any]) -> Objective:
        """One class per row."""
        return MultiClass(self._classes)

    def describe(self, train: Positions) -> Json:
        """Nothing is told."""
        return {}

    def agree(self, descriptions: Sequence[Json]) -> Json:
        """Nothing is agreed."""
        return {}

    def prepare(self, train: Positions, test: Positions, shared: Mapping[str, Any]) -> ClientData:
        """Make one client's rows."""
        first = np.concatenate([train.positions, test.positions])[:1]
        client = int(first[0]) // self._per_client if len(first) else 0
        whole_client = self._make(client)
        start = client * self._per_client

        def part(rows: Positions) -> Examples:
            return whole_client.take(np.asarray(rows.positions) - start)

        return ClientData(part(train), part(test))

    def _make(self, client: int) -> Examples:
        rng = generator(self._seed, "synthetic", client)
        y = rng.integers(0, self._classes, self._per_client)
        windows = sliding_window_view(self._noise, math.prod(self._shape))
        x = windows[rng.integers(0, len(windows), self._per_client)]
        x = x.reshape(-1, *self._shape) + self._patterns[y]
        return Examples(torch.from_numpy(x), torch.from_numpy(y))

    @cached_property
    def _noise(self) -> NDArray[np.float32]:
        """Normal noise, from which each row takes a window: drawing it anew is slow."""
        rng = generator(self._seed, "noise")
        return rng.standard_normal(_NOISE + math.prod(self._shape), dtype=np.float32)

    @cached_property
    def _patterns(self) -> NDArray[np.float32]:
        rng = generator(self._seed, "patterns")
        patterns = rng.standard_normal((self._classes, *self._shape), dtype=np.float32)
        return patterns * np.float32(SIGNAL)

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        shape = tuple(self.config.options["shape"])
        if not shape or not all(type(side) is int and side > 0 for side in shape):
            raise FedproofError(f"task.shape must be positive whole numbers, got {list(shape)}.")
        return shape

    @cached_property
    def _classes(self) -> int:
        return whole(self.config.options, "task.classes", 2)

    @cached_property
    def _seed(self) -> int:
        return whole(self.config.options, "task.data_seed", 0)

    @cached_property
    def _train(self) -> int:
        return whole(self.config.options, "task.rows", 1)

    @cached_property
    def _per_client(self) -> int:
        return self._train + whole(self.config.options, "task.test_rows", 1)
