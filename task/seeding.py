"""Random numbers that depend on names, never on process order, worker count or node ids."""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, *labels: str | int) -> int:
    """Return a 63-bit seed for the purpose that `labels` name, for example (round, client)."""
    text = "/".join([str(seed), *map(str, labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *labels: str | int) -> np.random.Generator:
    """Return a numpy generator for the purpose that `labels` name."""
    return np.random.default_rng(derive(seed, *labels))
