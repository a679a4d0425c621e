"""APFL against its closed form on a quadratic."""

import pytest
import torch

from task.personalization import personalization_of
from tests.task.personalization.quadratic import LR, START, grad, kept, own, settings, trained, work

V = torch.tensor([-0.5, 0.8, 0.4])


@pytest.mark.parametrize("adaptive", [False, True])
def test_one_step(adaptive):
    update = trained(
        "personalization=apfl", f"personalization.adaptive={adaptive}", "train.steps=1",
        kept=kept(V, alpha=torch.tensor(0.4)),
    )  # fmt: skip
    w = START - LR * grad(START)
    alpha = 0.4
    if adaptive:
        alpha -= LR * float((V - w) @ grad(0.4 * V + 0.6 * w))
    v = V - LR * alpha * grad(alpha * V + (1 - alpha) * w)
    assert torch.allclose(update.values, w, atol=1e-6)
    assert float(update.trained.memory["own/alpha"]) == pytest.approx(alpha, abs=1e-6)
    assert torch.allclose(own(update), v, atol=1e-5)


def test_the_mixture_is_used():
    config = settings("personalization=apfl")
    for memory, expected in (
        ({}, START),
        (kept(V, alpha=torch.tensor(0.25)), V / 4 + START * 0.75),
    ):
        mine = work(config, memory)
        personalization_of(config).personalize(mine)
        assert torch.allclose(mine.model.vector, expected)


def test_alpha_stays_a_share():
    far = kept(torch.tensor([40.0, -40.0, 30.0]), alpha=torch.tensor(0.9))
    update = trained("personalization=apfl", "train.steps=1", kept=far)
    assert float(update.trained.memory["own/alpha"]) == 0.0
