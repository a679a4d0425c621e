"""A run's training rows as a file of their own, so that settings can be chosen without the others.

What is held out of such a file is known to training rows only: no held-out row of the run is read.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from conf.compose import compose, quote
from task.source import DataSource
from task.tasks import keyboard


def overrides(told: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """Write the training rows of a run to `folder`; return what lets another run use them.

    Parameters
    ----------
    told : tuple of str
        Overrides of the run: ``task=iot`` with ``task.split=rows``, FEMNIST, or ``task=keyboard``
        on the embedded plays.
    folder : Path
        Where the file goes.
    """
    source = DataSource(compose(told))
    name = source.settings.task.name
    if name == "keyboard":
        path = folder / "texts.jsonl"
        _write_texts(path, source.settings.task.test_fraction)
        return (f"task.path={quote(path)}",)
    rows = np.concatenate([source.split(client)[0] for client in source.clients])
    path = folder / "rows.npz"
    if name == "iot":
        assert source.pool.clients is not None
        people = np.array([int(source.pool.clients[i].removeprefix("subject-")) for i in rows])
        pool = source.pool.rows
        np.savez(path, x=pool.x[rows].numpy(), y=pool.y[rows].numpy(), subject=people)
        return (f"task.path={quote(path)}", "task.test_fraction=0.34")
    with np.load(Path(str(source.settings.task.path))) as stored:
        kept = np.flatnonzero(~stored["test"])
        held_out = np.random.default_rng(1).random(len(kept)) < 0.2
        np.savez(
            path, x=stored["x"][kept], y=stored["y"][kept], writer=stored["writer"][kept],
            writers=stored["writers"], test=held_out,
        )  # fmt: skip
    return (f"task.path={quote(path)}",)


def _write_texts(path: Path, fraction: float) -> None:
    """Write the beginning of each role's text, of which the end is held out."""
    lines = keyboard.EMBEDDED.read_text(encoding="utf-8").splitlines()
    texts = [(name, text) for name, text in map(json.loads, lines)]
    kept = [(name, text[: int(len(text) * (1 - fraction))]) for name, text in texts]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in kept), encoding="utf-8")
