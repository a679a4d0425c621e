"""What the tests of all compressors use."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from conf.compose import compose
from task.compression import compressors_of
from task.compression.base import Compressor, Layout

LAYOUT = Layout(((6, 4), (6,), (5, 2, 3), (), (1, 7)))
"""Matrices, vectors, a number, and what only looks like a matrix: 68 values."""
vectors = st.lists(st.floats(-100, 100, width=32), min_size=LAYOUT.size, max_size=LAYOUT.size)


def built(name: str, **options: object) -> Compressor:
    told = [f"compression.{key}={value}" for key, value in options.items()]
    compressors = compressors_of(compose((f"compression={name}", *told)))
    assert compressors is not None
    return compressors[0]


def normal(size: int = LAYOUT.size, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def there_and_back(
    compressor: Compressor, update: Tensor, layout: Layout = LAYOUT, seed: int = 3
) -> Tensor:
    packet, _ = compressor.encode(update, layout, {}, seed)
    return compressor.decode(packet, layout, seed)


def bytes_of(compressor: Compressor, layout: Layout) -> int:
    packet, _ = compressor.encode(normal(layout.size), layout, {}, 0)
    return sum(array.nbytes for array in packet.values())


def average(compressor: Compressor, update: Tensor, draws: int) -> Tensor:
    """Return the mean of what an update becomes over so many seeds."""
    layout = Layout((tuple(update.shape),))
    decoded = [there_and_back(compressor, update, layout, seed) for seed in range(draws)]
    return torch.stack(decoded).double().mean(0)
