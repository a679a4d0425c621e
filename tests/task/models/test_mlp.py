import pytest
import torch

from task.base import ModelSpec
from task.models.mlp import build


def test_widths_follow_the_options():
    model = build({"hidden": [32, 16], "dropout": 0.0}, ModelSpec((4, 3), 5))
    weights = [tuple(p.shape) for p in model.parameters() if p.ndim == 2]
    assert weights == [(32, 12), (16, 32), (5, 16)]
    assert model(torch.randn(7, 4, 3)).shape == (7, 5)


def test_is_a_perceptron_with_relu():
    model = build({"hidden": [8], "dropout": 0.0}, ModelSpec((3,), 2))
    first, bias, second, last = model.state_dict().values()
    x = torch.randn(5, 3)
    expected = (x @ first.T + bias).clamp_min(0) @ second.T + last
    torch.testing.assert_close(model(x), expected)


def test_dropout_acts_in_training_only():
    model = build({"hidden": [64], "dropout": 0.5}, ModelSpec((3,), 1))
    x = torch.randn(4, 3)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("hidden", [[], [3]])
def test_initial_weights_come_from_the_global_generator(hidden):
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = build({"hidden": hidden, "dropout": 0.0}, ModelSpec((3,), 1))
        states.append(torch.cat([p.reshape(-1) for p in model.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
