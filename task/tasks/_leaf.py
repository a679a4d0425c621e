"""LEAF's JSON files (Caldas et al. 2018), whatever the data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import FedproofError


@dataclass(frozen=True)
class Part:
    """Rows of one user in one file.

    Attributes
    ----------
    x, y : list
        As the file has them, of the same length.
    held_out : bool or None
        Whether LEAF's split holds them out; None where the files are not split.
    """

    file: Path
    user: str
    x: list[Any]
    y: list[Any]
    held_out: bool | None


def read(path: Path) -> list[Part]:
    """Read one file, or a folder of them.

    A folder with ``train`` and ``test`` in it, as LEAF's ``preprocess.sh`` leaves it, says which
    rows are held out; ``all_data`` or the folder itself leave that to each client.

    Raises
    ------
    FedproofError
        If there are no such files, or they are not LEAF's.
    """
    if (path / "train").is_dir():
        folders = [(path / "train", False), (path / "test", True)]
        return [part for folder, test in folders for part in _folder(folder, test)]
    return list(_folder(path / "all_data" if (path / "all_data").is_dir() else path, None))


def _folder(folder: Path, held_out: bool | None) -> Iterator[Part]:
    files = [folder] if folder.is_file() else sorted(folder.glob("[!.]*.json"))
    if not files:
        raise FedproofError(
            f"no .json files at {folder}: task.path must be LEAF's data folder or a file of it."
        )
    for file in files:
        yield from _file(file, held_out)


def _file(file: Path, held_out: bool | None) -> list[Part]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        users = {str(user): content["user_data"][user] for user in content["users"]}
        parts = [Part(file, user, u["x"], u["y"], held_out) for user, u in users.items()]
        fits = all(isinstance(p.x, list) and len(p.x) == len(p.y) for p in parts)
    except (ValueError, LookupError, TypeError):
        parts, fits = [], False
    if not parts or not fits:
        raise FedproofError(
            f"{file} is not LEAF's: it needs users, and user_data with x and y of one length."
        )
    return parts
