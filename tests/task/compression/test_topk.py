from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from task.compression._bits import placed, positions
from task.compression.base import Layout, MalformedError
from tests.task.compression.shared import LAYOUT, built, bytes_of, normal, there_and_back, vectors


@given(size=st.integers(1, 3000), seed=st.integers(0, 99), share=st.floats(0, 1, exclude_min=True))
@settings(max_examples=80, deadline=None)
def test_places_come_back(size: int, seed: int, share: float) -> None:
    count = max(1, int(share * size))
    chosen = np.random.default_rng(seed).choice(size, count, replace=False)
    chosen.sort()
    packet = positions(chosen, size)
    assert np.array_equal(placed(packet, count, size), chosen)
    bits = 8 * sum(len(array) for array in packet.values())
    assert bits <= count * (3 + np.log2(size / count)) + 17


def test_places_that_are_none() -> None:
    packet = positions(np.array([1, 4, 9]), 10)
    for low, high in ((0, 255), (255, 0)):
        changed = {k: np.full_like(packet[k], v) for k, v in (("low", low), ("high", high))}
        with pytest.raises(MalformedError, match="names"):
            placed(changed, 3, 10)
    twice = positions(np.array([4, 4, 9]), 10)
    with pytest.raises(MalformedError, match="do not increase"):
        placed(twice, 3, 10)
    with pytest.raises(MalformedError, match="or are none"):
        placed(positions(np.array([1, 4, 10]), 10), 3, 10)


@given(values=vectors, share=st.floats(0, 1, exclude_min=True))
@settings(max_examples=40, deadline=None)
def test_the_largest_come_back_and_what_is_lost_is_less(values: list[float], share: float) -> None:
    update = torch.tensor(values)
    decoded = there_and_back(built("topk", share=share), update)
    count = min(LAYOUT.size, max(1, round(share * LAYOUT.size)))
    kept = update.abs().topk(count).values
    assert torch.allclose(decoded.abs().topk(count).values, kept, rtol=1e-3, atol=1e-7)
    # Stich et al. 2018, Definition 2.1: top-k contracts by 1 - k / d, up to half precision, which
    # rounds a value by at most 2^-11 of it, or 2^-25.
    most = (1 - count / LAYOUT.size) * update.double().square().sum()
    rounded = kept.double().square().sum() * 2.0**-22 + count * 2.0**-50
    assert (update - decoded).double().square().sum() <= (most + rounded) * 1.001


def test_one_percent_costs_less_than_a_hundredth_of_the_bytes() -> None:
    layout = Layout(((1000, 100),))
    assert bytes_of(built("topk"), layout) / (4 * layout.size) < 0.0081


def test_without_feedback_nothing_waits() -> None:
    assert built("topk").feedback and not built("topk", error_feedback=False).feedback


def test_values_beyond_half_precision_are_sent_as_far_as_it_goes() -> None:
    decoded = there_and_back(built("topk", share=1), normal(2) * 0 + 1e6, Layout(((2,),)))
    assert decoded.tolist() == [65504.0, 65504.0]
