from __future__ import annotations

import numpy as np
import pytest
import torch

from task.compression.base import Layout
from tests.task.compression.shared import average, built, bytes_of, normal, there_and_back

LAYOUT = Layout(((200,),))


def test_the_mask_is_the_seeds() -> None:
    update = normal(200)
    first, again, other = (
        there_and_back(built("random_mask"), update, LAYOUT, seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    for decoded in (first, other):
        chosen = decoded != 0
        assert chosen.sum() == 20
        assert torch.equal(decoded[chosen], update[chosen])


def test_an_update_takes_one_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, draw = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: drawn.append(seed) or draw(seed))
    compressor = built("random_mask")
    for seed in (1, 2):
        there_and_back(compressor, normal(200), LAYOUT, seed)
    assert drawn == [1, 2]


def test_each_value_has_the_same_chance() -> None:
    chosen = average(built("random_mask", share=0.25), torch.ones(200), 800)
    assert (chosen - 0.25).abs().max() < 4.5 * np.sqrt(0.25 * 0.75 / 800)


def test_without_feedback_the_mean_is_right() -> None:
    mean = average(built("random_mask", share=0.25, error_feedback=False), torch.ones(200), 800)
    assert (mean - 1).abs().max() < 4.5 * np.sqrt(3 / 800)
    assert not built("random_mask", error_feedback=False).feedback


def test_only_values_travel() -> None:
    assert bytes_of(built("random_mask"), LAYOUT) == 20 * 4
