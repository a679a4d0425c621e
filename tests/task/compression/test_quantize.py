from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from task.compression._bits import length, packed, unpacked
from task.compression.base import Layout, MalformedError
from tests.task.compression.shared import average, built, bytes_of, normal, there_and_back

LEVELS = {1: 2, 2: 3, 3: 7, 4: 15}


@given(data=st.data(), bits=st.integers(1, 17))
@settings(max_examples=100, deadline=None)
def test_packing_is_exact(data: st.DataObject, bits: int) -> None:
    numbers = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=50)), np.int64)
    bytes_ = packed(numbers, bits)
    assert len(bytes_) == length(bits, len(numbers)) == -(-bits * len(numbers) // 8)
    assert np.array_equal(unpacked(bytes_, bits, len(numbers)), numbers)


@pytest.mark.parametrize("bits", LEVELS)
def test_there_are_as_many_levels(bits: int) -> None:
    update = normal(5000).clamp(-2, 2)
    decoded = there_and_back(built("quantize", bits=bits, block=5000), update, Layout(((5000,),)))
    levels = decoded.unique()
    assert len(levels) == LEVELS[bits]
    assert levels[-1] == -levels[0] == 2.0
    assert (0.0 in levels.tolist()) == (bits > 1)


@pytest.mark.parametrize("bits", LEVELS)
def test_the_mean_is_right(bits: int) -> None:
    update = torch.linspace(-1, 1, 60)
    mean = average(built("quantize", bits=bits), update, 900)
    step = 2 / (LEVELS[bits] - 1)
    assert (mean - update).abs().max() < 4.5 * (step / 2) / np.sqrt(900)


@pytest.mark.parametrize("bits", LEVELS)
def test_so_many_bits_per_value(bits: int) -> None:
    layout = Layout(((1024,),))
    assert bytes_of(built("quantize", bits=bits), layout) == 128 * bits + 2 * 4


def test_levels_that_there_are_not() -> None:
    layout, compressor = Layout(((8,),)), built("quantize", bits=2)
    packet, _ = compressor.encode(torch.ones(8), layout, {}, 0)
    with pytest.raises(MalformedError, match="levels that there are not"):
        compressor.decode(packet | {"values": np.full(2, 255, np.uint8)}, layout, 0)
    with pytest.raises(MalformedError, match="levels that there are not"):
        compressor.decode(packet | {"scales": -packet["scales"]}, layout, 0)
