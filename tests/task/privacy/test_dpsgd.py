"""DP-SGD: the clipped sum of the field's definition, and noise that is there, fresh and its own."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from conf.schema import Optimizer, TrainConfig
from task.base import Examples
from task.flat import FlatModel
from task.objectives import Binary
from task.privacy import dpsgd
from task.privacy.adaptive import AdaptiveClip
from task.privacy.dpsgd import Mechanism, batch_plan, train_privately
from task.privacy.noise import SecureNoise

ROWS = 24
WIDE = 20_000


def examples(rows=ROWS, features=6):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, features, generator=generator)
    return Examples(x, (torch.rand(rows, generator=generator) < 0.5).float())


def trained(mechanism, config=None, features=6, seed=0):
    torch.manual_seed(3)
    model = FlatModel(nn.Linear(features, 1))
    start = model.vector.detach().clone()
    config = config or TrainConfig(lr=1.0)
    train_privately(model, examples(features=features), Binary(), config, mechanism, seed=seed)
    return model.vector.detach() - start


def everyone(sigma, steps=1, clip=0.1):
    return Mechanism(sigma, clip, False, 1.0, steps)


def test_without_noise_a_step_is_the_mean_of_clipped_gradients():
    """One example at a time, by plain automatic differentiation."""
    torch.manual_seed(3)
    layer = nn.Linear(6, 1)
    data, total = examples(), torch.zeros(7)
    for x, y in zip(data.x, data.y, strict=True):
        loss = nn.functional.binary_cross_entropy_with_logits(layer(x).squeeze(), y)
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, layer.parameters())])
        total += gradient * min(1.0, 0.1 / float(gradient.norm()))
    torch.testing.assert_close(trained(everyone(0.0)), -total / ROWS)


def test_batches_in_parts_are_the_whole():
    whole = everyone(0.0, steps=3)
    torch.testing.assert_close(trained(replace(whole, physical=5)), trained(whole))


def test_a_clip_that_adapts_finds_the_gradients_norms_whatever_the_parts():
    def last(physical):
        adaptive = AdaptiveClip(0.5, 0.5, 1e-3, ROWS)
        mechanism = replace(everyone(0.0, steps=40), physical=physical, adaptive=adaptive)
        model = FlatModel(nn.Linear(6, 1))
        model.vector.data.zero_()
        config = TrainConfig(lr=1e-9)
        done = train_privately(model, examples(), Binary(), config, mechanism, seed=0)
        return float(done.memory["clip"])

    data, norms = examples(), []
    for x, y in zip(data.x, data.y, strict=True):
        # Of logistic regression at zero: the error is one half, and the bias counts as an input.
        norms.append(0.5 * float(torch.cat([x, torch.ones(1)]).norm()))
        assert y in (0, 1)
    median = float(torch.tensor(norms).median())
    assert last(None) == pytest.approx(median, rel=0.2)
    assert last(5) == pytest.approx(median, rel=0.2)


def noise():
    """Return what a release of one step holds beyond the clipped sum, in units of its noise."""
    clean = trained(everyone(0.0), features=WIDE)
    return (clean - trained(everyone(2.0), features=WIDE)) * ROWS / (2.0 * 0.1)


def check_noise():
    first, second = noise(), noise()
    for sample in (first, second):
        assert abs(float(sample.mean())) < 5 / math.sqrt(WIDE)
        assert abs(float(sample.var()) - 1) < 5 * math.sqrt(2 / WIDE)
        # Kurtosis of a Gaussian: 3.
        assert abs(float(sample.pow(4).mean()) - 3) < 5 * math.sqrt(96 / WIDE)
    # Of another client, or of another round: independent, though all seeds are the same.
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 5 / math.sqrt(WIDE)


def test_the_noise_is_there_and_its_own():
    check_noise()


@pytest.mark.parametrize("fault", ["none", "seeded", "half"])
def test_noise_that_is_not_right_is_found(fault, monkeypatch):
    add = dpsgd.add_noise
    if fault == "none":
        monkeypatch.setattr(dpsgd, "add_noise", lambda *_: None)
    elif fault == "half":
        monkeypatch.setattr(dpsgd, "add_noise", lambda g, d, r: add(g, d / 2, r))
    else:
        monkeypatch.setattr(dpsgd, "SecureNoise", lambda: SecureNoise(bytes(32)))
    with pytest.raises(AssertionError):
        check_noise()


def test_batches_are_drawn_one_by_one():
    """Poisson sampling: sizes vary as a binomial's, empty batches are steps of noise alone."""
    sizes = []

    def count(module, chosen, objective, clip):
        sizes.append(len(chosen))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dpsgd, "clipper_for", lambda *_: count)
        steps = 2000
        change = trained(Mechanism(1.0, 0.1, False, 0.05, steps), TrainConfig(lr=1e-6))
    whole = ROWS * steps
    assert abs(sum(sizes) - 0.05 * whole) < 5 * math.sqrt(0.05 * 0.95 * whole)
    empty = steps - len(sizes)
    chance = 0.95**ROWS
    assert abs(empty - chance * steps) < 5 * math.sqrt(chance * (1 - chance) * steps)
    assert change.all()


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(lr=0.1, momentum=0.9, weight_decay=0.1),
        TrainConfig(lr=0.01, optimizer=Optimizer.adam),
    ],
)
def test_any_optimiser_takes_the_steps(config):
    change = trained(everyone(1.0, steps=3), config)
    assert change.isfinite().all() and change.all()


def test_rate_and_steps():
    assert batch_plan(320, TrainConfig(batch_size=32, epochs=2)) == (0.1, 20)
    assert batch_plan(320, TrainConfig(batch_size=32, steps=7)) == (0.1, 7)
    assert batch_plan(10, TrainConfig(batch_size=32)) == (1.0, 1)
