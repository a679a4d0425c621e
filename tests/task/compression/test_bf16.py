from __future__ import annotations

import torch

from task.compression.base import Layout
from tests.task.compression.shared import built, bytes_of, normal, there_and_back


def test_it_rounds_to_the_nearest_over_the_whole_range() -> None:
    update = normal() * 1e30
    assert torch.equal(there_and_back(built("bf16"), update), update.bfloat16().float())


def test_half_the_bytes() -> None:
    assert bytes_of(built("bf16"), Layout(((1000,),))) == 2000
