"""The data of the clients that one node serves: dealt, split, and made ready when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from conf.errors import FedproofError
from conf.groups import PartitionConfig
from conf.schema import Settings
from task.base import ClientData, Examples, Json, Pool, Task
from task.disclosure import is_protected, with_categories
from task.held_out import keyed_held_out
from task.partition import partition
from task.registry import find
from task.seeding import generator

Indices = NDArray[np.int64]


def load_task(settings: Settings) -> Task[Any]:
    """Instantiate the task that the settings name."""
    return cast(Task[Any], find("task.tasks", settings.task.name).Task(settings.task))


class DataSource:
    """Rows of the clients on one node, as training and held-out parts.

    Parameters
    ----------
    settings : Settings
        What the run was told.
    own : Path or None
        The node's own data. Its rows stay with their natural clients whatever the run's
        partition says; data without natural clients is one client.
    name : str or None
        Name of that one client; if None its only natural client's, or the file's stem.
    part, parts : int
        Without own data: this node serves every `parts`-th client, from `part` on.
    split_key : bytes or None
        A silo's own secret, by which it holds rows out (`task.held_out`); None: the run's seed
        draws them, as where one party holds all rows.
    whole : bool
        Whether its own data are one client, also where they name several.
    categories : mapping of str to sequence of str, optional
        Of some columns, the categories that are told in place of those in the rows.
    pin : callable or None
        Called with the `split_rule` before rows are held out; raises what is to be raised.
    """

    def __init__(
        self,
        settings: Settings,
        own: Path | None = None,
        name: str | None = None,
        part: int = 0,
        parts: int = 1,
        *,
        split_key: bytes | None = None,
        whole: bool = False,
        categories: Mapping[str, Sequence[str]] | None = None,
        pin: Callable[[str], None] | None = None,
    ) -> None:
        self.settings = settings
        self.task = load_task(settings)
        self._own = own
        self._name = name
        self._split_key = split_key
        self._whole = whole
        self._categories = categories or {}
        self._pin = pin
        self._part = slice(part, None, parts)

    @cached_property
    def pool(self) -> Pool[Any]:
        """All rows on this machine."""
        if self._own is not None:
            self.task.check_own(self._own, is_protected(self.settings))
        pool = self.task.load(self._path)
        if pool.overlap is not None and self.settings.privacy.name == "record_dp":
            raise FedproofError(
                f"privacy=record_dp protects one row, and {pool.overlap}: choose "
                "privacy=client_dp, or data whose rows do not overlap."
            )
        if self._own is not None and (self._name or pool.clients is None or self._whole):
            # A name given by the silo's operator is who the silo is; it goes before the file's.
            named = {*(pool.clients or ())}
            name = self._name or (named.pop() if len(named) == 1 else self._own.stem)
            pool = replace(pool, clients=[name] * len(pool.rows), groups=None)
        return pool

    @property
    def _path(self) -> Path | None:
        if self._own is None and self.settings.task.path:
            return Path(self.settings.task.path).expanduser()
        return self._own

    @cached_property
    def parts(self) -> Mapping[str, Indices]:
        """Rows of every client that this machine could serve."""
        config, clients = self.settings.partition, self.settings.federation.clients
        if self._own is not None:
            config, clients = PartitionConfig("natural"), None
        return partition(self.pool, config, clients, self.settings.seed)

    @property
    def clients(self) -> list[str]:
        """Stable ids of the clients served here, sorted."""
        return sorted(self.parts)[self._part]

    def size(self, client: str) -> tuple[int, int]:
        """Return how many training and held-out rows a client has."""
        train, test = self.split(client)
        return len(train), len(test)

    def describe(self, client: str) -> Json:
        """Return what the client tells the server before training: of protected rows nothing."""
        if is_protected(self.settings):
            return {}
        train, _ = self.split(client)
        if not len(train):
            return {}
        described = self.task.describe(self.pool.rows.take(train))
        return with_categories(described, self.settings.task.target, self._categories)

    def data(self, client: str, shared: Mapping[str, Any]) -> ClientData:
        """Return a client's tensors."""
        train, test = self.split(client)
        return self.task.prepare(self.pool.rows.take(train), self.pool.rows.take(test), shared)

    def require_served(self, client: str) -> None:
        """Refuse a client that has no rows here.

        Raises
        ------
        FedproofError
            Then.
        """
        if client not in self.parts:
            raise FedproofError(f"client '{client}' is not served by this node.")

    def split(self, client: str) -> tuple[Indices, Indices]:
        """Return the positions of a client's training and held-out rows."""
        self.require_served(client)
        rows = self.parts[client]
        held_out = self._held_out(client, rows)
        return rows[~held_out], rows[held_out]

    @property
    def split_rule(self) -> str:
        """What decides which rows are held out, in words: a run with another rule has others."""
        if self._uses_official:
            return "the data's own held-out rows"
        return f"task.test_fraction={self.settings.task.test_fraction:g}"

    @property
    def _uses_official(self) -> bool:
        keyed = self._split_key is not None
        return self.pool.test is not None and not (keyed and self.pool.test_of_settings)

    def _held_out(self, client: str, rows: Indices) -> NDArray[np.bool_]:
        fraction, pool = self.settings.task.test_fraction, self.pool
        if self._pin is not None:
            self._pin(self.split_rule)
        if self._uses_official:
            assert pool.test is not None
            return pool.test[rows]
        if self._split_key is not None:
            return keyed_held_out(self._digests[rows], fraction, self._split_key)
        labels = None if pool.labels is None else pool.labels[rows]
        rng = generator(self.settings.seed, "split", client)
        return hold_out(len(rows), fraction, labels, rng)

    @cached_property
    def _digests(self) -> NDArray[np.uint64]:
        return self.task.row_digests(self._path, self.pool)


def agreement(settings: Settings, task: Task[Any], descriptions: Iterable[Json]) -> Json:
    """Return what all clients share: as they describe their rows, or of protected ones as declared.

    Raises
    ------
    FedproofError
        If the descriptions do not go together, or the settings declare too little.
    """
    return task.derive_shared() if is_protected(settings) else task.agree([*descriptions])


def root_examples(
    settings: Settings, shared: Mapping[str, Any], count: int, own: Path | None
) -> Examples:
    """Return rows that a server of a simulation, or with rows of its `own`, may train on.

    In a simulation `count` of the clients' training rows, drawn by the seed, never held-out ones;
    of its own all that are not held out.
    """
    source = DataSource(settings, own)
    rows = np.concatenate([source.split(client)[0] for client in sorted(source.parts)])
    if own is None:
        rng = generator(settings.seed, "root")
        rows = np.sort(rng.choice(rows, min(count, len(rows)), replace=False))
    pool = source.pool.rows
    return source.task.prepare(pool.take(rows), pool.take(rows[:0]), shared).train


def hold_out(
    count: int, fraction: float, labels: NDArray[np.int64] | None, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Choose held-out rows at random, each class in proportion.

    Rows in random order, grouped by class, are walked with a step of `fraction`; a row is held
    out whenever the walk passes a whole number. So every class and the whole are within one row
    of their exact share. At least one row stays for training.

    Returns
    -------
    ndarray of bool, shape (count,)
    """
    order = rng.permutation(count)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    walk = np.floor(np.arange(count + 1) * fraction + rng.random())
    held_out = np.zeros(count, dtype=bool)
    held_out[order] = np.diff(walk) > 0
    if count and held_out.all():
        held_out[order[0]] = False
    return held_out
