"""Finance: loans that go bad, by US state, or fraudulent card payments.

``task.dataset=loans`` (LendingClub, embedded) has the borrowers' states as natural clients, each
with its own mix of grades and incomes. ``task.dataset=creditcard`` (ULB) is read from ``task.path``
or downloaded, and has no natural clients: partition it. Whatever turns columns into features is
fixed by the data's codebook, so nothing is learnt from rows but the federation's mean and standard
deviation (``task.scaling``).
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from conf.errors import FedproofError
from task import tables
from task.base import Examples, ModelSpec, Pool, TensorTask
from task.objectives import Binary, Objective
from task.options import choice, whole

LOANS = Path(__file__).resolve().parents[1] / "data" / "loans.jsonl"
STATE, LOAN_CLASS = "addr_state", "Class"
AMOUNTS = (
    "funded_amnt", "annual_inc", "total_bal_il", "total_il_high_credit_limit", "delinq_amnt",
)  # fmt: skip
"""US dollars; their logarithms are features, for they span several powers of ten."""
COUNTS = (
    "int_rate", "delinq_2yrs", "inq_last_6mths", "revol_util", "acc_now_delinq", "open_il_6m",
    "open_il_12m", "open_il_24m", "all_util", "inq_fi", "inq_last_12m", "num_il_tl",
)  # fmt: skip
CODES: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "term": {"term_36": (0.0,), "term_60": (1.0,)},
    "sub_grade": {
        f"{grade}{n}": (5.0 * i + n,) for i, grade in enumerate("ABCDEFG") for n in range(1, 6)
    },
    "verification_status": {
        "Not_Verified": (0.0, 0.0), "Source_Verified": (1.0, 0.0), "Verified": (0.0, 1.0),
    },
    "emp_length": {
        "emp_lt_1": (0.0, 0.0), **{f"emp_{n}": (float(n), 0.0) for n in range(1, 10)},
        "emp_ge_10": (10.0, 0.0), "emp_unk": (0.0, 1.0),
    },
}  # fmt: skip
"""The codebook: what each spelling means as features; grades and years keep their order."""

CARD_URL = "https://storage.googleapis.com/download.tensorflow.org/data/creditcard.csv"
CARD_ROWS, CARD_FRAUDS = 284_807, 492
CARD_COLUMNS = (*(f"V{i}" for i in range(1, 29)), "Amount")
CARD_CLASS = "Class"

Columns = Mapping[str, Sequence[Any]]


class Task(TensorTask):
    """Tell which loans or payments go wrong."""

    sources = (
        "loans: LendingClub, table lending_club of the R package modeldata (MIT); creditcard: "
        "Machine Learning Group of ULB (DbCL 1.0)"
    )

    def load(self, path: Path | None) -> Pool[Examples]:
        """Read the data set that ``task.dataset`` names."""
        return self._cards(path) if self._is_cards else self._loans(path)

    def spec(self, shared: Mapping[str, Any]) -> ModelSpec:
        """Return the number of features, and one logit."""
        if self._is_cards:
            return ModelSpec((len(CARD_COLUMNS),), 1)
        coded = sum(len(next(iter(codes.values()))) for codes in CODES.values())
        return ModelSpec((len(AMOUNTS) + len(COUNTS) + coded,), 1)

    def objective(self, shared: Mapping[str, Any]) -> Objective:
        """Return binary cross-entropy."""
        return Binary()

    @property
    def _is_cards(self) -> bool:
        known = ("loans", "creditcard")
        return choice({"dataset": self.config.dataset}, "task.dataset", known) == "creditcard"

    def _loans(self, path: Path | None) -> Pool[Examples]:
        columns = _embedded() if path is None else _read(path, (*AMOUNTS, *COUNTS, *CODES))
        codes = {"good": (0.0,), "bad": (1.0,)}
        labels = _coded(columns, LOAN_CLASS, codes)[:, 0].astype(np.int64)
        features = np.concatenate(
            [
                np.log1p(_numbers(columns, AMOUNTS)),
                _numbers(columns, COUNTS),
                *(_coded(columns, name, codes) for name, codes in CODES.items()),
            ],
            axis=1,
        )
        if STATE not in columns:
            return _pool(features, labels, None)
        states = [str(state).lower() for state in columns[STATE]]
        least = whole(self.config.options, "task.min_rows", 1)
        sizes = Counter(states)
        kept = [i for i, state in enumerate(states) if sizes[state] >= least]
        if not kept:
            raise FedproofError(f"no state has task.min_rows={least} loans: lower it.")
        return _pool(features[kept], labels[kept], [states[i] for i in kept])

    def _cards(self, path: Path | None) -> Pool[Examples]:
        if path is None or not path.exists():
            if not self.config.options["download"]:
                raise FedproofError(
                    f"task.dataset=creditcard found {path or 'no task.path'}: give the file as "
                    f"task.path=creditcard.csv, or task.download=true to fetch {CARD_URL}."
                )
            path = _download(path or Path("~/.cache/fedproof/creditcard.csv").expanduser())
        columns = _read(path, CARD_COLUMNS)
        features = _numbers(columns, CARD_COLUMNS)
        features[:, -1] = np.log1p(features[:, -1])
        labels = _numbers(columns, (CARD_CLASS,))[:, 0]
        if not np.isin(labels, (0, 1)).all():
            raise FedproofError(f"column '{CARD_CLASS}' of {path} must be 0 or 1 (fraud).")
        return _pool(features, labels.astype(np.int64), None)


def _embedded() -> Columns:
    with LOANS.open(encoding="utf-8") as lines:
        names, *rows = map(json.loads, lines)
    return dict(zip(names, zip(*rows, strict=True), strict=True))


def _read(path: Path, names: Sequence[str]) -> Columns:
    """Read a file of the user, which must have the named columns and the class."""
    table = tables.read_table(path)
    tables.require(table, (*names, LOAN_CLASS), path)
    return {name: table[name].tolist() for name in table.columns}


def _numbers(columns: Columns, names: Sequence[str]) -> NDArray[np.float64]:
    """Return numeric columns side by side, shape (n, len(names))."""
    result = np.empty((len(columns[names[0]]), len(names)))
    for i, name in enumerate(names):
        try:
            result[:, i] = columns[name]
        except (ValueError, TypeError):
            result[:, i] = np.nan
        if not np.isfinite(result[:, i]).all() or (name in AMOUNTS and result[:, i].min() < 0):
            raise FedproofError(f"column '{name}' must hold valid numbers in all rows: mend them.")
    return result


def _coded(
    columns: Columns, name: str, codes: Mapping[str, tuple[float, ...]]
) -> NDArray[np.float64]:
    """Translate a column by the codebook, shape (n, features)."""
    if unknown := set(columns[name]) - set(codes):
        raise FedproofError(
            f"column '{name}' has {len(unknown)} value(s) outside the codebook: spell them like "
            f"{tables.quoted(list(codes))}."
        )
    return np.array([codes[value] for value in columns[name]])


def _pool(
    features: NDArray[np.float64], labels: NDArray[np.int64], clients: Sequence[str] | None
) -> Pool[Examples]:
    x = torch.from_numpy(features.astype(np.float32))
    return Pool(Examples(x, torch.from_numpy(labels).float()), labels, clients)


def _download(path: Path) -> Path:
    """Fetch the official file to `path`, and keep it only if it is what it should be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{os.getpid()}-{path.name}")
    try:
        with urllib.request.urlopen(CARD_URL, timeout=60) as reply, part.open("wb") as file:
            shutil.copyfileobj(reply, file)
        table = _read(part, CARD_COLUMNS)
        found = (len(table[CARD_CLASS]), sum(table[CARD_CLASS]))
        if found != (CARD_ROWS, CARD_FRAUDS):
            raise FedproofError(
                f"{CARD_URL} has {found[0]} rows with {found[1]} frauds instead of {CARD_ROWS} "
                f"with {CARD_FRAUDS}: get creditcard.csv elsewhere and give its task.path."
            )
        return part.replace(path)
    except OSError as error:
        raise FedproofError(
            f"cannot download {CARD_URL} ({error}): get the file and give task.path."
        ) from None
    finally:
        part.unlink(missing_ok=True)
