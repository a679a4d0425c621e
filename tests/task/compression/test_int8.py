from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from task.compression.base import Layout
from tests.task.compression.shared import LAYOUT, average, built, bytes_of, there_and_back, vectors


@given(values=vectors, block=st.integers(1, 80))
@settings(max_examples=40, deadline=None)
def test_no_value_moves_by_a_step_of_its_block(values: list[float], block: int) -> None:
    update = torch.tensor(values)
    decoded = there_and_back(built("int8", block=block), update)
    for part, got in zip(torch.split(update, block), torch.split(decoded, block), strict=True):
        largest = part.abs().max()
        assert (got - part).abs().max() <= largest / 127 * 1.001
        assert got.abs().max() <= largest


def test_the_mean_is_right() -> None:
    update = torch.linspace(-1, 1, 200)
    mean = average(built("int8", block=50), update, 400)
    # A value moves by at most a step of 1 / 127: its standard deviation is at most half of it.
    assert (mean - update).abs().max() < 4.5 * (0.5 / 127) / np.sqrt(400)


def test_a_block_has_a_scale_of_its_own() -> None:
    update = torch.cat([torch.full((4,), 1e-6), torch.full((4,), 1e6)])
    decoded = there_and_back(built("int8", block=4), update, Layout(((8,),)))
    assert torch.allclose(decoded, update, rtol=1e-6)


def test_a_byte_per_value_and_four_per_block() -> None:
    assert bytes_of(built("int8"), Layout(((1024,),))) == 1024 + 2 * 4
    assert bytes_of(built("int8"), LAYOUT) == LAYOUT.size + 4
