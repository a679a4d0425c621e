"""Give each hospital's embedded rows a file of its own, in UCI's layout: what a silo would hold.

python -m benchmarks.data.hospitals FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from task.tasks.healthcare import EMBEDDED


def main(folder: Path) -> list[Path]:
    """Write ``processed.<hospital>.data`` files to `folder`; return them, sorted."""
    rows = [json.loads(line) for line in EMBEDDED.read_text(encoding="utf-8").splitlines()]
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for hospital in sorted({row[0] for row in rows}):
        lines = [
            ",".join("?" if value is None else str(value) for value in row[1:])
            for row in rows
            if row[0] == hospital
        ]
        written.append(folder / f"processed.{hospital}.data")
        written[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return written


if __name__ == "__main__":
    for file in main(Path(sys.argv[1])):
        print(file)
