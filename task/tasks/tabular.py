"""The user's own table: classification or regression on any CSV or Parquet file.

``task.path`` is one file, or a folder with one file per client; ``task.target`` the column to
predict; ``task.client`` the column that names each row's client. What the columns mean is agreed
between the clients before training: each tells the server its columns, the categories in them and,
for ``task.scaling=federated``, count, sum and sum of squares of the numeric ones. Rows stay where
they are. Columns whose very values are confidential belong into ``task.drop``. A run with privacy
or secure sums tells nothing before training: ``task.columns`` and ``task.categories`` declare what
the columns mean (`task.declared`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import task.base
from conf.errors import FedproofError
from conf.schema import Scaling
from task import encoding, table_checks, tables
from task.base import ClientData, Examples, Json, ModelSpec, Pool
from task.declared import (
    category_codes,
    declared_categories,
    declared_columns,
    sorted_classes,
)
from task.disclosure import told_sums
from task.held_out import table_digests
from task.objectives import Binary, Metrics, MultiClass, Objective, Regression
from task.options import choice

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)
KINDS = ("auto", "binary", "multiclass", "regression")
MAX_INTEGER_CLASSES = 20
"""``task.kind=auto`` takes a target of more distinct integers than this for a quantity."""


class StandardizedRegression(Regression):
    """Squared error in units of the target's standard deviation; errors reported in its own units.

    So a learning rate suits targets of any scale. ``loss`` is in standardised units, ``r2`` has
    none, ``mean_absolute_error`` and ``root_mean_squared_error`` are in those of the table.
    """

    def __init__(self, std: float) -> None:
        self.std = std

    def pooled(self, sums: Mapping[str, list[float]]) -> Metrics:
        """Return the metrics of the union of the rows behind `sums`."""
        result = super().pooled(sums)
        for name in ("mean_absolute_error", "root_mean_squared_error"):
            result[name] *= self.std
        return result


class Task(task.base.Task["pandas.DataFrame"]):
    """Learn a column of a table from the others."""

    sources: ClassVar[str] = "the user's own table"

    def load(self, path: Path | None) -> Pool[pandas.DataFrame]:
        """Read the table at `path`; rows without a target are left out."""
        if path is None:
            raise FedproofError("task=tabular needs task.path=FILE, a CSV or Parquet file.")
        target, client, options = self._target(), self.config.client, self.config.options
        table, clients = tables.read_tables(path)
        named = [
            target, *([client] if client else []), *options["drop"], *options["categorical"],
            *self._named, *self._categories,
        ]  # fmt: skip
        tables.require(table, named, path)
        features = self._features(list(table.columns))
        if not features:
            raise FedproofError(f"{path} has no columns besides '{target}' to learn from.")
        if client:
            clients = _client_names(table[client], path)
        known = np.flatnonzero(self._known(table[target]))
        if not len(known):
            raise FedproofError(f"column '{target}' of {path} is empty: nothing can be learned.")
        table = table[[*features, target]].take(known)
        return Pool(
            table,
            self._labels(table[target]),
            None if clients is None else [clients[i] for i in known],
        )

    def row_digests(self, path: Path | None, pool: Pool[pandas.DataFrame]) -> NDArray[np.uint64]:
        """Return digests of all columns of the file, also of those that a run drops."""
        assert path is not None
        table, _ = tables.read_tables(path)
        return table_digests(table)[self._known(table[self._target()])]

    def check_own(self, path: Path, protected: bool) -> None:
        """Refuse a file without a header; a plain run's identifiers are worth a word."""
        if protected:
            table_checks.require_header(path)
            return
        table_checks.require_distinct_header(path)
        table, _ = tables.read_tables(path)
        if found := table_checks.identifiers(table, self._features(list(table.columns))):
            log.warning(
                "%s has another value in nearly every row, and this run tells the server all of "
                "them: name it in task.drop", tables.quoted(found)
            )  # fmt: skip

    def columns(self, path: Path | None) -> list[str] | None:
        """Return all columns of the table that are used: not those that are dropped."""
        known = [] if path is None else tables.column_names(path)
        client = [self.config.client] if self.config.client else []
        return [*self._features(known), self._target(), *client]

    def derive_shared(self) -> Json:
        """Return the declared columns, and the target's declared classes."""
        if told := told_sums(self.config):
            raise FedproofError(f"{told}.")
        columns = {*self._named, *self._categories} - {self._target()}
        return {
            "columns": declared_columns([*columns], self._categories),
            "target": self._declared_target(),
        }

    def _declared_target(self) -> Json:
        name, kind = self._target(), self._kind
        classes = sorted_classes(self._categories[name])
        if kind == "regression" or (kind == "binary" and len(classes) > 2):
            raise FedproofError(
                f"task.categories.{name} names {len(classes)} classes, which task.kind={kind} does "
                "not take: choose task.kind=multiclass, or leave them out."
            )
        if kind == "auto":
            kind = "binary" if len(classes) == 2 else "multiclass"
        return {"kind": kind, "classes": classes, "declared": True}

    def spec(self, shared: Mapping[str, Any]) -> ModelSpec:
        """Return the width of the agreed features, and one output or one per class."""
        target = shared["target"]
        outputs = len(target["classes"]) if target["kind"] == "multiclass" else 1
        return ModelSpec((encoding.width(shared["columns"]),), outputs)

    def objective(self, shared: Mapping[str, Any]) -> Objective:
        """Return the objective of the kind of target that was agreed."""
        target = shared["target"]
        if target["kind"] == "regression":
            return StandardizedRegression(target["std"])
        return Binary() if target["kind"] == "binary" else MultiClass(len(target["classes"]))

    def describe(self, train: pandas.DataFrame) -> Json:
        """Return the columns' kinds, categories and sums, and the target's classes or sums."""
        target = self._target()
        # Of what the experiment declares nothing is told.
        features = [c for c in train.columns if c != target and c not in self._categories]
        # Missing values are filled with the federation's mean unless scaling is local.
        sums = self.config.scaling is not Scaling.local
        return {
            "columns": encoding.describe_columns(
                train, features, self.config.options["categorical"], sums
            ),
            "target": {} if target in self._categories else self._describe_target(train[target]),
        }

    def agree(self, descriptions: Sequence[Json]) -> Json:
        """Merge the columns, and settle what kind of target it is."""
        told = encoding.agree_columns([d["columns"] for d in descriptions])
        declared = declared_columns([*{*self._categories} - {self._target()}], self._categories)
        columns = [*told, *declared]
        if not columns:
            raise FedproofError("all columns are empty at every client: nothing can be learned.")
        return {
            "columns": sorted(columns, key=lambda column: str(column["name"])),
            "target": self._agree_target([d["target"] for d in descriptions]),
        }

    def prepare(
        self, train: pandas.DataFrame, test: pandas.DataFrame, shared: Mapping[str, Any]
    ) -> ClientData:
        """Encode one client's rows as agreed."""
        scaling, columns = self.config.scaling, shared["columns"]
        if scaling is Scaling.local:
            columns = encoding.localize(columns, train if len(train) else test)
        name, standardize = self._target(), scaling is not Scaling.none
        parts = (
            Examples(encoding.encode(p, columns, standardize), _targets(p[name], shared["target"]))
            for p in (train, test)
        )
        return ClientData(*parts)

    def _target(self) -> str:
        if not self.config.target:
            raise FedproofError("task=tabular needs task.target=COLUMN, the column to predict.")
        return self.config.target

    @property
    def _kind(self) -> str:
        return choice(self.config.options, "task.kind", KINDS)

    @cached_property
    def _categories(self) -> dict[str, list[str]]:
        return declared_categories(self.config.options)

    @property
    def _named(self) -> list[str]:
        return [str(name) for name in self.config.options.get("columns") or ()]

    def _features(self, known: Sequence[str]) -> list[str]:
        """Return the columns to learn from, of those that are there."""
        options, others = self.config.options, {self._target(), self.config.client}
        named = {*self._named, *self._categories} if self._named else {*known}
        return [c for c in known if c in named - others - {*options["drop"]}]

    def _known(self, target: pandas.Series[Any]) -> NDArray[np.bool_]:
        """Tell which rows have a target: one of its classes, where those are declared."""
        classes = self._categories.get(self._target())
        if classes is None:
            return np.asarray(target.notna().to_numpy())
        return category_codes(target, classes) >= 0

    def _labels(self, target: pandas.Series[Any]) -> NDArray[np.int64] | None:
        """Return class numbers for splits and partitions on this machine; None for quantities."""
        if declared := self._categories.get(self._target()):
            return category_codes(target, sorted_classes(declared))
        if self._describe_target(target)["values"] is None:
            return None
        return np.unique(np.array(encoding.spell(target)), return_inverse=True)[1].astype(np.int64)

    def _describe_target(self, target: pandas.Series[Any]) -> Json:
        """Return the distinct values if they may be classes, the sums if it may be a quantity.

        Of a quantity no value is told: distinct values would be as good as the rows.
        """
        numeric = tables.is_numeric(target)
        told: Json = {"numeric": numeric, "moments": None, "values": None}
        if numeric:
            values = encoding.numbers(target)
            if self._kind in ("auto", "regression"):
                told["moments"] = encoding.sums_of(values)
        distinct = sorted({str(text) for text in encoding.spell(target)})
        most = encoding.MAX_CATEGORIES
        if numeric and self._kind == "auto":
            most = MAX_INTEGER_CLASSES if (values % 1 == 0).all() else 2
        if self._kind != "regression" and len(distinct) <= most:
            told["values"] = distinct
        return told

    def _agree_target(self, told: Sequence[Json]) -> Json:
        name, kind = self._target(), self._kind
        if name in self._categories:
            return self._declared_target()
        if len({d["numeric"] for d in told}) > 1:
            raise FedproofError(
                f"the target '{name}' holds numbers at some clients and text at others: write it "
                "alike everywhere."
            )
        numeric = bool(told[0]["numeric"])
        classes = _classes(told, numeric)
        if kind == "auto":
            kind = _guess(classes, numeric)
        if kind == "regression":
            facts = encoding.merged([d["moments"] for d in told])
            if not numeric or not facts["std"]:
                trouble = "has a single value" if numeric else "is text"
                raise FedproofError(
                    f"the target '{name}' {trouble}: regression needs a column of numbers."
                )
            return {"kind": kind, **facts}
        if classes is None or len(classes) > encoding.MAX_CATEGORIES:
            raise FedproofError(
                f"the target '{name}' has more than {encoding.MAX_CATEGORIES} classes: choose "
                "another column, or task.kind=regression for numbers."
            )
        if len(classes) < 2 or (kind == "binary" and len(classes) > 2):
            need = "two classes" if kind == "binary" else "at least two classes"
            raise FedproofError(
                f"the target '{name}' has {len(classes)} distinct value(s) in the clients' "
                f"training rows: {need} are needed; choose another column or task.kind."
            )
        return {"kind": kind, "classes": classes}


def _classes(told: Sequence[Json], numeric: bool) -> list[str] | None:
    """Return the union of the clients' classes in order, the later of two being the positive."""
    if any(d["values"] is None for d in told):
        return None
    union = {str(value) for d in told for value in d["values"]}
    return sorted(union, key=float) if numeric else sorted(union)


def _guess(classes: list[str] | None, numeric: bool) -> str:
    if classes is not None and len(classes) == 2:
        return "binary"
    if not numeric:
        return "multiclass"
    if classes is None or len(classes) > MAX_INTEGER_CLASSES:
        return "regression"
    return "multiclass" if all(float(value).is_integer() for value in classes) else "regression"


def _client_names(values: pandas.Series[Any], path: Path) -> list[str]:
    names = encoding.spell(values)
    if None in names:
        raise FedproofError(
            f"rows of {path} have no value in the client column '{values.name}': fill it in."
        )
    return [str(name) for name in names]


def _targets(values: pandas.Series[Any], agreed: Json) -> Tensor:
    """Return float32 for binary and regression targets, int64 class numbers otherwise."""
    if agreed["kind"] == "regression":
        standard = (encoding.numbers(values) - agreed["mean"]) / agreed["std"]
        return torch.from_numpy(standard.astype(np.float32))
    if agreed.get("declared"):
        codes = torch.from_numpy(category_codes(values, agreed["classes"]))
        return codes.float() if agreed["kind"] == "binary" else codes
    place = {name: i for i, name in enumerate(agreed["classes"])}
    index = [place.get(str(text), -1) for text in encoding.spell(values)]
    if -1 in index:
        raise FedproofError(
            f"the target '{values.name}' has a class that no client's training rows had when the "
            "run began: remove its rows, or give it more."
        )
    dtype = torch.float32 if agreed["kind"] == "binary" else torch.int64
    return torch.tensor(index, dtype=dtype)
