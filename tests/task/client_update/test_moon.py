"""MOON's contrastive loss against its definition, by automatic differentiation."""

import copy

import pytest
import torch
from torch import nn

from conf.compose import compose
from conf.errors import FedproofError
from task.base import Examples
from task.client_update import update_of
from task.client_update.base import OWN, Work
from task.flat import FlatModel
from task.kernels import accelerate
from task.objectives import MultiClass

X, Y = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1] * 3)
LR = 0.1


def net():
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def moon(mu=2.0):
    settings = compose(
        ("strategy=moon", f"strategy.mu={mu}", "strategy.temperature=0.7", "train.batch_size=6",
         "train.steps=1", f"train.lr={LR}")
    )  # fmt: skip
    return update_of(settings), settings.train


def run(update, config, kept):
    model = FlatModel(accelerate(net()))
    work = Work(model, Examples(X, Y), MultiClass(2), config, seed=1, kept=kept)
    return update.run(work)


def test_a_step_is_that_of_the_papers_loss():
    update, config = moon()
    before = {key: value + 0.3 for key, value in net().state_dict().items()}
    previous = torch.cat([value.reshape(-1) for value in before.values()])
    found = run(update, config, {OWN + "previous": previous})

    model, fixed, last = net(), net(), net()
    last.load_state_dict(before)
    z, near, far = (m[:2](X) for m in (model, fixed, last))
    towards = torch.exp(torch.cosine_similarity(z, near.detach()) / 0.7)
    away = torch.exp(torch.cosine_similarity(z, far.detach()) / 0.7)
    contrast = -torch.log(towards / (towards + away)).mean()
    (nn.functional.cross_entropy(model(X), Y) + 2.0 * contrast).backward()
    stepped = torch.cat([(p - LR * p.grad).reshape(-1) for p in model.parameters()])
    torch.testing.assert_close(found.values, stepped)
    torch.testing.assert_close(found.trained.memory[OWN + "previous"], stepped)


def test_neutral_settings_and_first_rounds_are_fedavgs():
    plain = update_of(compose(("strategy=fedavg",)))
    update, config = moon(mu=0.0)
    reference = run(plain, config, {}).values
    assert torch.equal(run(update, config, {OWN + "previous": torch.ones(32)}).values, reference)
    assert torch.equal(run(moon()[0], config, {}).values, reference)


def test_the_representation_must_be_learnt():
    update, _ = moon()
    update.check(net())
    with pytest.raises(FedproofError, match="the input itself"):
        update.check(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))
    with pytest.raises(FedproofError, match="a dense layer"):
        update.check(copy.deepcopy(nn.Conv1d(1, 1, 1)))
