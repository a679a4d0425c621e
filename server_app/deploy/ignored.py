"""Secrets stay out of git, whatever ``git add`` is told in the folders around them."""

from __future__ import annotations

import subprocess
from pathlib import Path

IGNORE = ".gitignore"


def ignore_all_but(public: tuple[str, ...]) -> str:
    """Return a ``.gitignore`` that takes nothing but files of these names.

    What is not listed is ignored, so that no file that is made later (state, ledgers, logs) needs
    to be thought of.
    """
    lines = ["# Keys, ledgers, logs and whatever comes besides stay here.", "*"]
    return "\n".join([*lines, *(f"!{name}" for name in (IGNORE, *public))]) + "\n"


def keep_from_git(secret: Path) -> None:
    """Have git ignore a secret that lies anywhere, in a repository or in what may become one.

    In a repository it goes into ``.git/info/exclude``, which no commit holds; elsewhere into the
    folder's ``.gitignore``.
    """
    folder, name = secret.resolve().parent, secret.name
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None:
        _append(folder / IGNORE, f"/{name}")
    elif _git(folder, "check-ignore", name) is None:
        exclude = _git(folder, "rev-parse", "--path-format=absolute", "--git-path", "info/exclude")
        relative = (folder / name).relative_to(Path(top).resolve()).as_posix()
        _append(Path(str(exclude)), f"/{relative}")


def _append(path: Path, line: str) -> None:
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if line not in before.splitlines():
        path.parent.mkdir(exist_ok=True)
        path.write_text(before + ("" if before[-1:] in ("", "\n") else "\n") + line + "\n", "utf-8")


def _git(folder: Path, *told: str) -> str | None:
    """Return what git says in a folder; None if it fails, or is not installed."""
    try:
        done = subprocess.run(
            ["git", *told], cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
