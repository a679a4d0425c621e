from dataclasses import replace

import pytest
import torch
from torch import nn

from conf.schema import Optimizer, TrainConfig
from task.base import Examples
from task.batches import batches
from task.flat import FlatModel
from task.objectives import Binary, Regression
from task.training import train

ROWS = Examples(
    torch.randn(37, 5, generator=torch.Generator().manual_seed(0)),
    (torch.rand(37, generator=torch.Generator().manual_seed(1)) < 0.5).float(),
)


def net():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))


def reference(config, mu=0.0, seed=7):
    """Plain PyTorch: parameter by parameter, with its own optimisers."""
    module = net()
    start = [p.detach().clone() for p in module.parameters()]
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    extra = {"momentum": config.momentum} if config.optimizer is Optimizer.sgd else {}
    optimizer = kinds[config.optimizer.value](
        module.parameters(), lr=config.lr, weight_decay=config.weight_decay, **extra
    )
    torch.manual_seed(seed)
    for index in batches(len(ROWS), config):
        optimizer.zero_grad()
        loss = Binary().loss(module(ROWS.x[index]), ROWS.y[index]).mean()
        if mu:
            pairs = zip(module.parameters(), start, strict=True)
            loss = loss + mu / 2 * sum((p - q).square().sum() for p, q in pairs)
        loss.backward()
        if config.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(module.parameters(), config.max_grad_norm)
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(epochs=3, batch_size=8, lr=0.3),
        TrainConfig(epochs=3, batch_size=8, lr=0.1, momentum=0.9),
        TrainConfig(epochs=2, batch_size=5, lr=0.1, momentum=0.9, weight_decay=0.01),
        TrainConfig(steps=11, batch_size=64, lr=0.2),
    ],
)
def test_sgd_is_pytorchs_bit_for_bit(config):
    model = FlatModel(net())
    train(model, ROWS, Binary(), config, seed=7)
    assert model.vector.detach().equal(reference(config))


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(epochs=1, batch_size=37, lr=0.1, momentum=0.9),
        TrainConfig(epochs=1, batch_size=37, lr=0.01, optimizer=Optimizer.adam),
    ],
)
def test_training_goes_on_with_what_the_optimiser_remembers(config):
    """All rows in one batch: five rounds of one epoch are then one round of five epochs."""
    parts, whole = FlatModel(net()), FlatModel(net())
    memory = None
    for _ in range(5):
        memory = train(parts, ROWS, Binary(), config, seed=7, memory=memory).memory
    train(whole, ROWS, Binary(), replace(config, epochs=5), seed=7)
    torch.testing.assert_close(parts.vector, whole.vector, rtol=1e-5, atol=1e-6)
    forgetful = FlatModel(net())
    for _ in range(5):
        train(forgetful, ROWS, Binary(), config, seed=7)
    assert (forgetful.vector - whole.vector).norm() > 1e-3


@pytest.mark.parametrize("optimizer", [Optimizer.adam, Optimizer.adamw])
def test_adam_is_pytorchs(optimizer):
    config = TrainConfig(epochs=2, batch_size=8, lr=0.01, optimizer=optimizer, weight_decay=0.1)
    model = FlatModel(net())
    train(model, ROWS, Binary(), config, seed=7)
    torch.testing.assert_close(model.vector.detach(), reference(config), rtol=1e-6, atol=1e-7)


def test_clipping_is_pytorchs():
    config = TrainConfig(epochs=2, batch_size=8, lr=0.5, max_grad_norm=0.05)
    model = FlatModel(net())
    train(model, ROWS, Binary(), config, seed=7)
    torch.testing.assert_close(model.vector.detach(), reference(config), rtol=1e-6, atol=1e-7)


def test_the_proximal_term_is_that_of_the_loss():
    config = TrainConfig(epochs=3, batch_size=8, lr=0.3)
    model = FlatModel(net())
    train(model, ROWS, Binary(), config, seed=7, proximal_mu=0.5)
    torch.testing.assert_close(
        model.vector.detach(), reference(config, mu=0.5), rtol=1e-5, atol=1e-6
    )
    assert not model.vector.detach().equal(reference(config))


def test_a_large_proximal_term_keeps_the_model():
    config = TrainConfig(steps=50, batch_size=8, lr=1e-3)
    near, far = FlatModel(net()), FlatModel(net())
    start = near.vector.detach().clone()
    train(near, ROWS, Binary(), config, seed=7, proximal_mu=500.0)
    train(far, ROWS, Binary(), config, seed=7)
    assert (near.vector - start).norm() < 0.1 * (far.vector - start).norm()


def test_training_leaves_the_callers_random_state_alone():
    model = FlatModel(net())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(model, ROWS, Binary(), TrainConfig(), seed=7)
    assert torch.rand(3).equal(expected)


def test_loss_is_the_mean_over_batches_and_steps_are_counted():
    model = FlatModel(nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model.vector.fill_(0.0)
    rows = Examples(torch.ones(4, 1), torch.full((4,), 2.0))
    trained = train(model, rows, Regression(), TrainConfig(steps=2, batch_size=2, lr=0.25), seed=0)
    # d/dw (w - 2)^2 = -4 at 0; the step of 0.25 lands at 1, where the loss is 1.
    assert trained.steps == 2 and trained.loss == pytest.approx((4 + 1) / 2)
