"""What a task is: data of clients, a model's shape, an objective.

A task knows how to read its data on one machine (`Task.load`), what its clients may tell each
other about it before training (`describe` at a client, `agree` at the server), and how one
client's rows become tensors (`prepare`). Which rows belong to which client, and which of them
are held out, is decided by `task.partition` and `task.source` for all tasks alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conf.errors import FedproofError
from conf.schema import Scaling, TaskConfig
from task.held_out import example_digests
from task.objectives import Objective

Json = dict[str, Any]


class Rows(Protocol):
    """Rows of a data set that can be counted and picked by position."""

    def __len__(self) -> int: ...

    def take(self, indices: NDArray[np.int64]) -> Self:
        """Return the rows at `indices`, in that order."""
        ...


R = TypeVar("R", bound=Rows)


@dataclass(frozen=True)
class Examples:
    """Tensors of one or more examples.

    Attributes
    ----------
    x : Tensor, shape (n, ...)
        Inputs: float32 features, or int64 symbols.
    y : Tensor, shape (n,) or (n, length)
        Targets: int64 classes, float32 for regression and binary targets.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device) -> Examples:
        """Return the same rows on a device."""
        return Examples(self.x.to(device), self.y.to(device))

    def take(self, indices: NDArray[np.int64]) -> Examples:
        """Return the rows at `indices`, in that order."""
        index = torch.from_numpy(np.asarray(indices, dtype=np.int64))
        return Examples(self.x[index], self.y[index])


@dataclass(frozen=True)
class Pool(Generic[R]):
    """All rows that one machine can see, before they are dealt to clients.

    Attributes
    ----------
    rows : Rows
        `Examples`, or a table that the task turns into them in `prepare`.
    labels : ndarray of int64, shape (n,), or None
        Classes for partitioners and stratified splits; None where rows have none.
    clients : sequence of str, length n, or None
        Natural client of each row; None where the data has no natural clients.
    test : ndarray of bool, shape (n,), or None
        Official held-out rows; None where each client splits its own.
    test_of_settings : bool
        Whether `test` depends on the run's settings or on other rows: a silo that holds rows out
        by its own key pays no heed to it.
    overlap : str or None
        Why rows are no records of their own, if they share what they hold.
    groups : mapping of client id to row positions, or None
        Natural clients, in sorted order, in place of `clients` where there are too many to list.
    """

    rows: R
    labels: NDArray[np.int64] | None = None
    clients: Sequence[str] | None = None
    test: NDArray[np.bool_] | None = None
    groups: Mapping[str, NDArray[np.int64]] | None = None
    test_of_settings: bool = False
    overlap: str | None = None


@dataclass(frozen=True)
class ClientData:
    """One client's tensors, ready for a model."""

    train: Examples
    test: Examples


@dataclass(frozen=True)
class ModelSpec:
    """What a model must fit.

    Attributes
    ----------
    input_shape : tuple of int
        Shape of one input, without the batch axis.
    outputs : int
        Width of the output: classes, symbols, or 1.
    vocabulary : int
        Number of symbols of integer inputs; 0 where inputs are floats.
    """

    input_shape: tuple[int, ...]
    outputs: int
    vocabulary: int = 0


class Task(ABC, Generic[R]):
    """A learning problem over clients' data.

    A subclass is named ``Task`` in its own module under `task.tasks`; the module's name is what
    users type.
    """

    sources: ClassVar[str] = ""
    """Origin and licence of the data, for the run's evidence."""

    def __init__(self, config: TaskConfig) -> None:
        self.config = config

    @abstractmethod
    def load(self, path: Path | None) -> Pool[R]:
        """Read all rows on this machine: the embedded sample, or what lies at `path`.

        Raises
        ------
        FedproofError
            If the data is missing or does not fit the task.
        """

    def row_digests(self, path: Path | None, pool: Pool[R]) -> NDArray[np.uint64]:
        """Return a digest of each row of a pool: of its content, whatever the run's settings.

        A task whose settings choose among the columns of its rows computes it from the file.

        Raises
        ------
        FedproofError
            If the task does not say how.
        """
        if not isinstance(pool.rows, Examples):
            raise FedproofError(
                f"task={self.config.name} does not say what identifies a row: a silo's held-out "
                "rows cannot be chosen; give the task a method row_digests."
            )
        return example_digests(pool.rows)

    def check_own(self, path: Path, protected: bool) -> None:
        """Refuse a silo's own data that would tell of rows where names are expected.

        Parameters
        ----------
        path : Path
            The silo's data.
        protected : bool
            Whether noise or secure sums protect the rows: then it may not depend on them whether
            the silo answers.

        Raises
        ------
        FedproofError
            With a sentence for the silo's operator.
        """

    def columns(self, path: Path | None) -> list[str] | None:
        """Return the columns of the data at `path` that a run would use; None if it has none.

        It looks at names only, for a silo's policy decides by them before any row is read.
        """
        return None

    @abstractmethod
    def spec(self, shared: Mapping[str, Any]) -> ModelSpec:
        """Return the model's shape; the server calls this and has no rows."""

    @abstractmethod
    def objective(self, shared: Mapping[str, Any]) -> Objective:
        """Return loss and metrics."""

    @abstractmethod
    def describe(self, train: R) -> Json:
        """Return what a client tells the server about its training rows: statistics, never rows."""

    @abstractmethod
    def agree(self, descriptions: Sequence[Json]) -> Json:
        """Merge the clients' descriptions into what all of them share."""

    def derive_shared(self) -> Json:
        """Return what all clients share as the settings alone say it, where runs protect rows.

        Nothing of a row is told then before training, for neither noise nor masks reach it. Unless
        a task overrides this, it is what `agree` makes of no descriptions.

        Raises
        ------
        FedproofError
            If the settings leave it to the rows.
        """
        return self.agree([])

    @abstractmethod
    def prepare(self, train: R, test: R, shared: Mapping[str, Any]) -> ClientData:
        """Turn one client's rows into tensors, knowing only them and what was agreed."""


class TensorTask(Task[Examples]):
    """A task whose rows are tensors already; standardises features as ``task.scaling`` says."""

    def describe(self, train: Examples) -> Json:
        """Return count, mean and squared deviations per feature if the scaling is federated."""
        if self.config.scaling is not Scaling.federated:
            return {}
        return moments(train.x)

    def agree(self, descriptions: Sequence[Json]) -> Json:
        """Merge the moments into one mean and standard deviation."""
        if self.config.scaling is not Scaling.federated:
            return {}
        return merge_moments(descriptions)

    def prepare(self, train: Examples, test: Examples, shared: Mapping[str, Any]) -> ClientData:
        """Standardise both parts with the client's own or the federation's training statistics.

        Own ones of a client that only tests are those of the rows it has, as when it predicts.
        """
        if self.config.scaling is Scaling.none:
            return ClientData(train, test)
        facts = shared
        if self.config.scaling is Scaling.local:
            facts = merge_moments([moments((train if len(train) else test).x)])
        return ClientData(standardize(train, facts), standardize(test, facts))


def moments(x: Tensor) -> Json:
    """Return counts, means and sums of squared deviations over all axes but the last.

    NaN is not counted. In two passes: from sums of squares, a column whose mean is large beside
    its deviation loses all digits of the latter (Chan, Golub and LeVeque 1983, eq. 1.7). What the
    mean's own rounding leaves out is its ``remainder``.
    """
    flat = x.double().reshape(-1, x.shape[-1])
    count = (~flat.isnan()).sum(0)
    some = count.clamp_min(1)
    mean = flat.nansum(0) / some
    mean = mean + (flat - mean).nansum(0) / some
    rest = flat - mean
    remainder = rest.nansum(0) / some
    facts = {
        "count": count,
        "mean": mean,
        "remainder": remainder,
        "deviations": (rest - remainder).square().nansum(0),
    }
    return {name: values.tolist() for name, values in facts.items()}


def merge_moments(descriptions: Sequence[Json]) -> Json:
    """Return ``mean`` and unbiased ``std`` of the union of the described rows.

    Parameters
    ----------
    descriptions : sequence of dict
        What `moments` returned for each part, of which the means may be large and alike: they are
        merged as distances from the first one (Chan, Golub and LeVeque 1983, eq. 2.1).
    """
    count, means, remainders, squares = (
        torch.tensor([d[key] for d in descriptions], dtype=torch.float64)
        for key in ("count", "mean", "remainder", "deviations")
    )
    total = count.sum(0)
    some = total.clamp_min(1)
    first = means.gather(0, (count > 0).double().argmax(0, keepdim=True)).squeeze(0)
    shifts = torch.where(count > 0, (means - first) + remainders, 0.0)
    shift = (count * shifts).sum(0) / some
    between = (count * (shifts - shift).square()).sum(0)
    variance = (squares.sum(0) + between).clamp_min(0.0) / (total - 1).clamp_min(1)
    mean = torch.where(total > 0, first + shift, 0.0)
    return {"mean": mean.tolist(), "std": variance.sqrt().tolist()}


def standardize(examples: Examples, facts: Mapping[str, Any]) -> Examples:
    """Subtract the mean and divide by the standard deviation; constant features stay centred."""
    mean = torch.tensor(facts["mean"], dtype=torch.float32)
    std = torch.tensor(facts["std"], dtype=torch.float32)
    return Examples((examples.x - mean) / torch.where(std > 0, std, 1.0), examples.y)
