from __future__ import annotations

import torch

from task.compression.base import Layout
from tests.task.compression.shared import built, bytes_of, normal, there_and_back


def test_it_rounds_to_the_nearest() -> None:
    update = normal()
    assert torch.equal(there_and_back(built("fp16"), update), update.half().float())


def test_what_is_too_large_becomes_the_largest() -> None:
    update = torch.tensor([1e6, -1e6, 65504.0, 1e-9])
    decoded = there_and_back(built("fp16"), update, Layout(((4,),)))
    assert decoded.tolist() == [65504.0, -65504.0, 65504.0, 0.0]


def test_half_the_bytes() -> None:
    assert bytes_of(built("fp16"), Layout(((1000,),))) == 2000
