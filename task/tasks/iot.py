"""Activity recognition from a phone's accelerometer and gyroscope (UCI HAPT), client = person."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.base import Examples, ModelSpec, Pool, TensorTask
from task.objectives import MultiClass, Objective
from task.options import choice
from task.tasks import _npz, _uci
from task.tasks._uci import CHANNELS, LENGTH, Windows

EMBEDDED = Path(__file__).resolve().parent.parent / "data" / "hapt.jsonl"
HALVED = LENGTH // 2
"""Readings of an embedded window: 25 Hz."""
LEVELS = np.repeat([63.0, 25.0], 3)
"""Levels of an embedded reading per g, and per rad/s."""

ACTIVITIES = ("walking", "upstairs", "downstairs", "sitting", "standing", "laying")
HELD_OUT = (2, 4, 9, 10, 12, 13, 18, 20, 24)
"""Subjects of UCI's own test part, in HAR (Anguita et al. 2013) and in HAPT."""


class Task(TensorTask):
    """Recognise six activities in windows of 2.56 s.

    ``task.split=subjects`` holds out nine whole people, as UCI does: the model is tested on
    people it has never seen. ``rows`` holds out windows of everyone. UCI's windows overlap by half,
    so a reading is in two of them: record-level privacy is that of a window, and of a reading
    half as strong.
    """

    sources = "UCI Smartphone-Based Recognition of Human Activities (HAPT, HAR), CC BY 4.0"

    def load(self, path: Path | None) -> Pool[Examples]:
        """Read the embedded sample, an ``.npz`` file, or UCI's folders.

        An archive has ``x`` (n, 128, 6), acceleration in g then angular velocity in rad/s; ``y``
        0 to 5; ``subject``. A folder is UCI's HAPT (``RawData``) or HAR (``UCI HAR Dataset``).
        """
        options = self.config.options
        split = choice(options, "task.split", ("subjects", "rows"))
        if path is None and options["download"]:
            raise FedproofError("task.download needs task.path: the folder to download to.")
        if path is None:
            windows = _embedded()
        elif path.suffix == ".npz":
            windows = _from_npz(path)
        else:
            if options["download"]:
                _uci.download(path)
            windows = _uci.read(path)
        labels, subjects = windows.y, windows.subject
        test = np.isin(subjects, HELD_OUT) if split == "subjects" else None
        names = [f"subject-{subject:02d}" for subject in subjects.tolist()]
        rows = Examples(torch.from_numpy(windows.x), torch.from_numpy(labels))
        return Pool(rows, labels, names, test, test_of_settings=True)

    def spec(self, shared: Mapping[str, Any]) -> ModelSpec:
        """Windows of 128 readings of six channels."""
        return ModelSpec((LENGTH, CHANNELS), len(ACTIVITIES))

    def objective(self, shared: Mapping[str, Any]) -> Objective:
        """One activity per window."""
        return MultiClass(len(ACTIVITIES))


def _embedded() -> Windows:
    rows = [json.loads(line) for line in EMBEDDED.read_text(encoding="utf-8").splitlines()]
    levels = np.frombuffer(b"".join(base64.b64decode(row[2]) for row in rows), dtype=np.int8)
    readings = levels.reshape(len(rows), HALVED, CHANNELS) / LEVELS
    # Back to 50 Hz, so that one model fits the sample and the full data.
    x = readings.repeat(LENGTH // HALVED, axis=1).astype(np.float32)
    y, subject = (np.array([row[k] for row in rows], dtype=np.int64) for k in (1, 0))
    return Windows(x, y, subject)


def _from_npz(path: Path) -> Windows:
    arrays = _npz.read(path, ("x", "y", "subject"))
    x: NDArray[Any] = arrays["x"]
    if x.shape[1:] != (LENGTH, CHANNELS) or x.dtype.kind not in "fiu":
        raise FedproofError(
            f"{path}: x must be numbers of shape (n, {LENGTH}, {CHANNELS}), "
            f"got {x.dtype} {x.shape}."
        )
    if not np.isfinite(x).all():
        raise FedproofError(f"{path}: x must be finite.")
    subject = arrays["subject"]
    if subject.ndim != 1 or subject.dtype.kind not in "iu":
        raise FedproofError(f"{path}: subject must hold one whole number per window.")
    y = _npz.classes(arrays["y"], len(ACTIVITIES), path)
    return Windows(x.astype(np.float32), y, subject.astype(np.int64))
