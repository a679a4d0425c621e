"""Write `task/data/hapt.jsonl`, a compact sample of UCI HAPT.

    python -m benchmarks.data.hapt hapt_windows.npz

The archive has ``x`` (n, 128, 6), ``y`` 0 to 5 and ``subject``: what `task.tasks._uci.read` makes
of UCI's own files.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from task.tasks.iot import EMBEDDED, HALVED, LEVELS

PER_ACTIVITY = 8
"""Windows of each subject and activity, evenly spread over the recording."""


def sample(y: NDArray[Any], subject: NDArray[Any]) -> NDArray[np.int64]:
    """Return the positions of the windows to keep, ascending."""
    kept: list[int] = []
    for key in sorted(set(zip(subject.tolist(), y.tolist(), strict=True))):
        rows = np.flatnonzero((subject == key[0]) & (y == key[1]))
        steps = np.linspace(0, len(rows) - 1, PER_ACTIVITY).round().astype(int)
        kept += rows[np.unique(steps)].tolist()
    return np.array(sorted(kept), dtype=np.int64)


def encode(window: NDArray[Any]) -> str:
    """Average neighbouring readings and round to int8 in units of 1 / `LEVELS`."""
    halved = window.astype(np.float64).reshape(HALVED, -1, window.shape[1]).mean(1)
    levels = np.clip(np.rint(halved * LEVELS), -127, 127).astype(np.int8)
    return base64.b64encode(levels.tobytes()).decode()


def main(source: Path) -> None:
    """Sample and encode the windows in the archive at `source`."""
    with np.load(source) as archive:
        x, y, subject = (archive[key] for key in ("x", "y", "subject"))
    lines = [
        json.dumps([int(subject[row]), int(y[row]), encode(x[row])], separators=(",", ":"))
        for row in sample(y, subject)
    ]
    EMBEDDED.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
