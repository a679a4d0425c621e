"""Ditto against its closed form on a quadratic."""

import torch

from task.client_update.base import ClientUpdate
from tests.task.personalization.quadratic import (
    DATA,
    DESIGN,
    LR,
    START,
    grad,
    kept,
    own,
    settings,
    trained,
    work,
)

DITTO = ("personalization=ditto", "personalization.lambda=0.7")
V = torch.tensor([-0.5, 0.8, 0.4])


def test_steps_are_those_of_the_paper_and_what_is_sent_is_fedavgs():
    update = trained(*DITTO, "train.steps=2", kept=kept(V))
    v = V
    for _ in range(2):
        v = v - LR * (grad(v) + 0.7 * (v - START))
    assert torch.allclose(own(update), v, atol=1e-6)
    alone = ClientUpdate().run(work(settings("train.steps=2")))
    assert torch.equal(update.values, alone.values)


def test_it_settles_between_the_own_and_the_global_optimum():
    update = trained(*DITTO, "train.steps=800", "train.lr=0.2")
    hessian = 2 / 4 * DESIGN.T @ DESIGN + 0.7 * torch.eye(3)
    best = torch.linalg.solve(hessian, 2 / 4 * DESIGN.T @ DATA.y + 0.7 * START)
    assert torch.allclose(own(update), best, atol=1e-4)


def test_a_first_round_starts_from_the_global_model():
    update = trained(*DITTO, "train.steps=1")
    assert torch.allclose(own(update), START - LR * grad(START), atol=1e-6)


def test_nothing_of_the_optimiser_stays_unless_it_should():
    forgets = trained(*DITTO, "train.momentum=0.9")
    goes_on = trained(*DITTO, "train.momentum=0.9", "train.keep_optimizer=true")
    assert set(forgets.trained.memory) == {"own/model/weight", "own/model/bias"}
    assert set(goes_on.trained.memory) == {*forgets.trained.memory, "velocity"}
