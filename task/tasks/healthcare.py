"""Heart disease at four hospitals: Cleveland, Hungary, Switzerland and VA Long Beach (UCI).

Everything a hospital needs to encode its rows is UCI's codebook and its own rows, or sums that
the federation agreed on (``task.scaling=federated``): hospitals never see each other's rows.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from conf.errors import FedproofError
from conf.schema import Scaling
from task.base import (
    ClientData,
    Examples,
    Json,
    ModelSpec,
    Pool,
    merge_moments,
    moments,
)
from task.base import (
    Task as BaseTask,
)
from task.held_out import example_digests
from task.objectives import Binary, Objective
from task.options import choice

EMBEDDED = Path(__file__).resolve().parent.parent / "data" / "heart.jsonl"
COLUMNS = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak",
           "slope", "ca", "thal", "num")  # fmt: skip
NUMERIC = ("age", "trestbps", "chol", "thalach", "oldpeak", "ca")
CATEGORIES: dict[str, tuple[int, ...]] = {
    "sex": (1,),
    "cp": (1, 2, 3, 4),
    "fbs": (1,),
    "restecg": (0, 1, 2),
    "exang": (1,),
    "slope": (1, 2, 3),
    "thal": (3, 6, 7),
}
CODES = {name: codes if len(codes) > 1 else (0, 1) for name, codes in CATEGORIES.items()}
WORDS: dict[str, dict[str, int]] = {
    "sex": {"male": 1, "female": 0},
    "cp": {"typical angina": 1, "atypical angina": 2, "non-anginal": 3, "asymptomatic": 4},
    "fbs": {"true": 1, "false": 0},
    "restecg": {"normal": 0, "st-t abnormality": 1, "lv hypertrophy": 2},
    "exang": {"true": 1, "false": 0},
    "slope": {"upsloping": 1, "flat": 2, "downsloping": 3},
    "thal": {"normal": 3, "fixed defect": 6, "reversable defect": 7},
}
"""How the widespread csv of all four hospitals spells UCI's codes."""
ALIASES = {"thalch": "thalach", "dataset": "hospital"}
ALWAYS_KNOWN = ("age", "sex", "cp")
HOSPITALS = {"hungarian": "hungary", "va long beach": "va"}

FLAMBY_FRACTION = 0.66
FLAMBY_SEED = 43
_FLAMBY_COLUMNS = [*range(10), 13]

Table = NDArray[np.float64]


class Task(BaseTask[Examples]):
    """Predict heart disease from thirteen clinical measurements.

    ``task.features=full`` uses all rows and columns: numbers standardised, categories one-hot,
    and an indicator for what is missing. ``flamby`` is FLamby's Fed-Heart-Disease (Ogier du
    Terrail et al. 2022): 740 complete rows, 13 features, its own split.
    """

    sources = "UCI Heart Disease, CC BY 4.0"

    def load(self, path: Path | None) -> Pool[Examples]:
        """Read the embedded hospitals, or UCI's own files at `path`.

        `path` is a file ``processed.<hospital>.data``, a folder of them, or a csv with a header
        and, for several hospitals, a column ``hospital`` or ``dataset``; its categories are codes
        or words.
        """
        hospitals, table = _embedded() if path is None else _read(path)
        if self._flamby:
            return _flamby(hospitals, table)
        labels = (table[:, -1] > 0).astype(np.int64)
        return Pool(_examples(encode(table), labels), labels, hospitals)

    def row_digests(self, path: Path | None, pool: Pool[Examples]) -> NDArray[np.uint64]:
        """Return digests of UCI's columns, of which ``task.features`` uses some or all."""
        _, table = _embedded() if path is None else _read(path)
        if self._flamby:
            table = table[_complete(table)]
        return example_digests(Examples(torch.from_numpy(table), torch.zeros(len(table), 0)))

    def columns(self, path: Path | None) -> list[str] | None:
        """Return UCI's columns: all, or the eleven that FLamby uses."""
        return [*COLUMNS[:10], COLUMNS[13]] if self._flamby else list(COLUMNS)

    def spec(self, shared: Mapping[str, Any]) -> ModelSpec:
        """Thirteen features after FLamby, or all."""
        width = 13 if self._flamby else encode(np.zeros((1, len(COLUMNS)))).shape[1]
        return ModelSpec((width,), 1)

    def objective(self, shared: Mapping[str, Any]) -> Objective:
        """Disease or not."""
        return Binary()

    def describe(self, train: Examples) -> Json:
        """Return sums over the known values of each standardised feature."""
        if self.config.scaling is not Scaling.federated:
            return {}
        return moments(train.x[:, : self._scaled])

    def agree(self, descriptions: Sequence[Json]) -> Json:
        """Merge the hospitals' sums into means and standard deviations."""
        return merge_moments(descriptions) if self.config.scaling is Scaling.federated else {}

    def prepare(self, train: Examples, test: Examples, shared: Mapping[str, Any]) -> ClientData:
        """Standardise; a missing number becomes the mean."""
        facts = shared
        if self.config.scaling is Scaling.local:
            own = train if len(train) else test
            facts = merge_moments([moments(own.x[:, : self._scaled])])
        return ClientData(self._standardized(train, facts), self._standardized(test, facts))

    def _standardized(self, examples: Examples, facts: Mapping[str, Any]) -> Examples:
        x = examples.x.clone()
        if self.config.scaling is not Scaling.none:
            mean, std = (torch.tensor(facts[key], dtype=torch.float32) for key in ("mean", "std"))
            x[:, : self._scaled] = (x[:, : self._scaled] - mean) / torch.where(std > 0, std, 1.0)
        return Examples(x.nan_to_num(0.0), examples.y)

    @property
    def _flamby(self) -> bool:
        return choice(self.config.options, "task.features", ("full", "flamby")) == "flamby"

    @property
    def _scaled(self) -> int:
        return 13 if self._flamby else len(NUMERIC)


def encode(table: Table) -> Table:
    """Return numbers (NaN where missing), one-hot categories, and indicators of what is missing.

    Parameters
    ----------
    table : ndarray, shape (n, 14)
        UCI's columns, NaN where missing. A cholesterol or blood pressure of 0 is missing too.

    Returns
    -------
    ndarray, shape (n, 32)
    """
    columns = dict(zip(COLUMNS, table.T, strict=True))
    for name in ("chol", "trestbps"):
        columns[name] = np.where(columns[name] == 0, np.nan, columns[name])
    numbers = [columns[name] for name in NUMERIC]
    onehot = [columns[name] == code for name, codes in CATEGORIES.items() for code in codes]
    known = set(ALWAYS_KNOWN)
    missing = [np.isnan(columns[name]) for name in COLUMNS[:-1] if name not in known]
    return np.column_stack([*numbers, *onehot, *missing]).astype(np.float64)


def _flamby(hospitals: list[str], table: Table) -> Pool[Examples]:
    """Drop three columns and incomplete rows, make dummies, split: FLamby's recipe."""
    complete = _complete(table)
    kept = table[complete][:, _FLAMBY_COLUMNS]
    names = [hospitals[row] for row in np.flatnonzero(complete)]
    dummies = [kept[:, 2] == c for c in (2, 3, 4)] + [kept[:, 6] == c for c in (1, 2)]
    x = np.column_stack([kept[:, [0, 1, 3, 4, 5, 7, 8, 9]], *dummies])
    labels = (kept[:, -1] > 0).astype(np.int64)
    test = np.zeros(len(kept), dtype=bool)
    for hospital in set(names):
        rows = np.flatnonzero(np.asarray(names) == hospital)
        test[rows[_flamby_test(labels[rows])]] = True
    return Pool(_examples(x, labels), labels, names, test, test_of_settings=True)


def _complete(table: Table) -> NDArray[np.bool_]:
    """Tell which rows have all values that FLamby uses."""
    return np.asarray(~np.isnan(table[:, _FLAMBY_COLUMNS]).any(1))


def _flamby_test(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the held-out rows of one centre; a class with too few rows forbids stratifying."""
    from sklearn.model_selection import train_test_split

    if len(labels) < 2:
        return np.empty(0, dtype=np.int64)
    counts = np.bincount(labels, minlength=2)
    _, test = train_test_split(
        np.arange(len(labels)),
        train_size=FLAMBY_FRACTION,
        test_size=1 - FLAMBY_FRACTION,
        random_state=FLAMBY_SEED,
        stratify=labels if counts.min() > 2 else None,
    )
    return np.asarray(test, dtype=np.int64)


def _examples(x: Table, labels: NDArray[np.int64]) -> Examples:
    return Examples(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(labels).float())


def _embedded() -> tuple[list[str], Table]:
    rows = [json.loads(line) for line in EMBEDDED.read_text(encoding="utf-8").splitlines()]
    table = np.array([row[1:] for row in rows], dtype=np.float64)
    return [row[0] for row in rows], table


def _read(path: Path) -> tuple[list[str], Table]:
    files = sorted(path.glob("processed.*.data")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise FedproofError(
            f"no heart-disease data at {path}: give a processed.<hospital>.data file of UCI, a "
            "folder of them, or a csv with a header."
        )
    hospitals: list[str] = []
    values: list[list[float]] = []
    for file in files:
        names, rows = read_file(file)
        hospitals += names
        values += rows
    return hospitals, np.array(values, dtype=np.float64)


def read_file(file: Path) -> tuple[list[str], list[list[float]]]:
    """Return the hospital of each row, and the rows in UCI's columns and codes, NaN where missing.

    Raises
    ------
    FedproofError
        If the file cannot be read, lacks a column or rows, or a value is not in UCI's codebook.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = [row for row in csv.reader(lines) if row]
    except (OSError, UnicodeDecodeError, csv.Error):
        raise FedproofError(f"cannot read {file}: it must be UTF-8 text with commas.") from None
    named = bool(rows) and "age" in rows[0]
    header = [ALIASES.get(name, name) for name in rows.pop(0)] if named else list(COLUMNS)
    absent = [name for name in COLUMNS if name not in header]
    if absent or not rows:
        raise FedproofError(f"{file}: {f'column {absent[0]} is missing' if absent else 'no rows'}.")
    stem = file.name.removeprefix("processed.").partition(".")[0]
    hospitals, values = [], []
    for number, row in enumerate(rows, start=1 + named):
        cells = dict(zip(header, row, strict=False))
        values.append([_value(cells, name, f"{file}, line {number}") for name in COLUMNS])
        hospital = cells.get("hospital", stem).strip().lower()
        if not hospital:
            raise FedproofError(f"{file}, line {number}: the hospital is missing: fill it in.")
        hospitals.append(HOSPITALS.get(hospital, hospital))
    return hospitals, values


def _value(cells: Mapping[str, str], column: str, where: str) -> float:
    """Return UCI's number in one cell; NaN if it is empty or ``?``.

    The error does not quote the cell, for it may travel to the server.
    """
    word = cells.get(column, "").strip().lower()
    if word in ("", "?") and column != "num":
        return math.nan
    try:
        value = float(WORDS.get(column, {}).get(word, word))
    except ValueError:
        value = math.nan
    allowed = CODES.get(column)
    if not math.isfinite(value) or (allowed and value not in allowed):
        need = f"one of {', '.join(map(str, allowed))}" if allowed else "a number"
        raise FedproofError(f"{where}, column '{column}': expected {need}, or ? if it is missing.")
    return value
