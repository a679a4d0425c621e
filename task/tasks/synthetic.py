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
from numpy.typing import NDArray
from torch import Tensor

from conf.errors import FedproofError
from task.base import ClientData, Examples, Json, ModelSpec, Pool
from task.base import Task as BaseTask
from task.objectives import MultiClass, Objective
from task.options import whole
from task.seeding import generator

Indices = NDArray[np.int64]
_SEEN = 256
"""Features of an input that its class depends on, at most: all of them would take long."""
_NOISE = 1 << 20
_ALIGN = 16
"""Windows start at whole cache lines."""


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
    """Classify noise as a linear teacher does.

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
        rows = self._make(client)

        def part(wanted: Positions) -> Examples:
            indices = np.asarray(wanted.positions) - client * self._per_client
            whole_run = len(indices) and indices[-1] - indices[0] + 1 == len(indices)
            if not whole_run:
                return rows.take(indices)
            window = slice(int(indices[0]), int(indices[-1]) + 1)
            return Examples(rows.x[window], rows.y[window])

        return ClientData(part(train), part(test))

    def _make(self, client: int) -> Examples:
        """Return a client's rows: a window of the noise, and what the teacher says of it."""
        size = self._per_client * self._features
        places = (len(self._noise) - size) // _ALIGN
        start = int(generator(self._seed, "synthetic", client).integers(0, places)) * _ALIGN
        x = self._noise[start : start + size].view(self._per_client, *self._shape)
        return Examples(x, (x.flatten(1)[:, : len(self._teacher)] @ self._teacher).argmax(1))

    @cached_property
    def _noise(self) -> Tensor:
        """Normal noise, in which every client has a window: drawing each anew is slow."""
        size = _NOISE + self._per_client * self._features
        rng = generator(self._seed, "noise")
        return torch.from_numpy(rng.standard_normal(size, dtype=np.float32))

    @cached_property
    def _teacher(self) -> Tensor:
        rng = generator(self._seed, "teacher")
        shape = (min(self._features, _SEEN), self._classes)
        return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))

    @cached_property
    def _features(self) -> int:
        return math.prod(self._shape)

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
