import torch
from torch import nn

from conf.compose import compose
from task.base import ModelSpec
from task.flat import FlatModel, build_model


def test_parameters_and_gradients_are_views():
    module = nn.Sequential(nn.Linear(3, 2), nn.GroupNorm(1, 2), nn.Linear(2, 1))
    model = FlatModel(module)
    assert len(model.vector) == sum(p.numel() for p in module.parameters())
    with torch.no_grad():
        model.vector.zero_()
    assert not any(p.any() for p in module.parameters())
    module[2].bias.data.fill_(5.0)
    assert model.vector[-1] == 5.0
    module(torch.ones(1, 3)).sum().backward()
    assert model.gradient[-1] == 1.0
    model.zero_grad()
    assert module[2].bias.grad == 0.0 and module[2].bias.grad is not None


def test_frozen_parameters_stay_out_of_the_vector():
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    module[0].requires_grad_(False)
    model = FlatModel(module)
    assert len(model.vector) == 3
    assert set(model.state()) == set(module.state_dict())


def test_state_is_a_copy_and_loading_keeps_the_views():
    model = FlatModel(nn.Linear(2, 1))
    before = model.state()
    with torch.no_grad():
        model.vector.add_(1.0)
    assert not before["weight"].equal(model.module.weight)
    model.load({key: value.numpy() for key, value in before.items()})
    assert model.vector[:2].equal(before["weight"][0])


def test_initial_weights_are_the_seeds_alone():
    spec = ModelSpec((6,), 1)
    torch.manual_seed(9)
    state = torch.get_rng_state()
    first = build_model(compose(("seed=5",)), spec).state_dict()
    assert torch.get_rng_state().equal(state)
    torch.rand(100)
    second = build_model(compose(("seed=5", "strategy=fedadam")), spec).state_dict()
    other = build_model(compose(("seed=6",)), spec).state_dict()
    assert all(first[key].equal(second[key]) for key in first)
    assert not all(first[key].equal(other[key]) for key in first)
