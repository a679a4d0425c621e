"""FedRep trains the head at the representation that came, then the representation at that head."""

import torch
from torch import nn

from task.base import Examples
from task.client_update.base import ClientUpdate, Work
from task.flat import FlatModel
from task.kernels import accelerate
from task.objectives import MultiClass
from task.personalization import personalization_of
from tests.task.personalization.quadratic import settings

DATA = Examples(torch.randn(4, 3, generator=torch.manual_seed(5)), torch.tensor([0, 1, 1, 0]))


def module():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def step(net, layer, lr):
    """Take one step with one layer's parameters, by autograd alone."""
    loss = MultiClass(2).loss(net(DATA.x), DATA.y).mean()
    gradients = torch.autograd.grad(loss, list(net[layer].parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(net[layer].parameters(), gradients, strict=True):
            parameter.sub_(lr * gradient)


def test_head_first_then_body():
    config = settings(
        "personalization=fedrep", "personalization.head_epochs=3", "train.epochs=2"
    )  # fmt: skip
    model = FlatModel(accelerate(module()))
    method = personalization_of(config)
    update = method.wrap(ClientUpdate()).run(Work(model, DATA, MultiClass(2), config.train, seed=1))
    expected = module()
    for layer, steps in ((2, 3), (0, 2)):
        for _ in range(steps):
            step(expected, layer, config.train.lr)
    flat = torch.cat([p.detach().reshape(-1) for p in expected.parameters()])
    assert torch.allclose(update.values, flat, atol=1e-6)
    assert set(update.trained.memory) == {"own/model/2.weight", "own/model/2.bias"}
    assert all(p.requires_grad for p in model.module.parameters())
