"""Read numpy archives that users name."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.errors import FedproofError


def read(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file by their keys.

    Raises
    ------
    FedproofError
        If the file is missing, is no npz, lacks a required key, or its rows do not match up.
    """
    if not path.is_file():
        raise FedproofError(f"{path} does not exist: task.path must name an .npz file.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in (*required, *optional) if key in archive}
            found = ", ".join(archive.files) or "nothing"
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        raise FedproofError(f"{path} is not a readable .npz file of plain arrays.") from None
    missing = [key for key in required if key not in arrays]
    if missing:
        needed = ", ".join(required)
        raise FedproofError(f"{path} needs the arrays {needed} and has {found}.")
    lengths = {key: arrays[key].shape[:1] for key in required}
    if len(set(lengths.values())) > 1 or lengths[required[0]] in ((), (0,)):
        counts = ", ".join(f"{key} {shape[0] if shape else 0}" for key, shape in lengths.items())
        raise FedproofError(f"{path}: arrays need the same number of rows, at least one: {counts}.")
    return arrays


def classes(labels: NDArray[Any], count: int, path: Path) -> NDArray[np.int64]:
    """Return class labels as int64.

    Raises
    ------
    FedproofError
        If they are not whole numbers from 0 to `count` - 1, one per row.
    """
    whole = labels.ndim == 1 and labels.dtype.kind in "iu"
    if not whole or labels.min() < 0 or labels.max() >= count:
        raise FedproofError(f"{path}: y must hold whole numbers from 0 to {count - 1}.")
    return labels.astype(np.int64)
