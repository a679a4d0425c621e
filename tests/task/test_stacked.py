"""Clients trained together end where they end when each trains alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conf.schema import Optimizer, TrainConfig
from task.base import Examples, ModelSpec
from task.flat import FlatModel
from task.models import cnn, logistic, mlp
from task.objectives import Binary, MultiClass, NextToken, Regression
from task.stacked import MOST, dense_layers, obstacle, stack_size, stacks, train_stacked
from task.training import train

TOLERANCE = 1e-5
DENSE = ModelSpec((6,), 4)
SMALL = ModelSpec((1, 8, 8), 4)
MODELS = {
    "logistic": (lambda: logistic.build({}, DENSE), DENSE),
    "mlp": (lambda: mlp.build({"hidden": [8, 5], "dropout": 0.0}, DENSE), DENSE),
    "cnn": (lambda: cnn.build({"channels": [4], "hidden": 6, "groups": 2}, SMALL), SMALL),
}


def clients(spec, sizes, binary=False):
    made = []
    for size in sizes:
        y = torch.randint(0, 2, (size,)).float() if binary else torch.randint(0, 4, (size,))
        made.append(Examples(torch.randn(size, *spec.input_shape), y))
    return made


def alone(module, data, objective, config, mu=0.0):
    model = FlatModel(module)
    start = model.vector.detach().clone()
    found = []
    for seed, examples in enumerate(data):
        model.vector.data.copy_(start)
        trained = train(model, examples, objective, config, seed=seed, proximal_mu=mu)
        found.append((model.vector.detach().clone(), trained))
    model.vector.data.copy_(start)
    return start, found


CONFIGS = {
    "plain": TrainConfig(batch_size=8, lr=0.1),
    "epochs, momentum, decay": TrainConfig(
        epochs=2, batch_size=5, lr=0.05, momentum=0.9, weight_decay=0.01
    ),
    "steps, clipping": TrainConfig(steps=7, batch_size=6, lr=0.3, max_grad_norm=0.5),
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mu", [0.0, 0.1])
def test_equal_to_training_alone(name, config, mu):
    torch.manual_seed(1)
    build, spec = MODELS[name]
    module, objective = build(), MultiClass(4)
    data = clients(spec, [20, 3, 11, 20, 1])
    start, expected = alone(module, data, objective, CONFIGS[config], mu)
    values, trained = train_stacked(
        build(), start, data, objective, CONFIGS[config], seeds=range(5), proximal_mu=mu
    )
    for row, found, (vector, result) in zip(values, trained, expected, strict=True):
        assert (row - vector).norm() <= TOLERANCE * (vector - start).norm()
        assert found.steps == result.steps and found.loss == pytest.approx(result.loss, rel=1e-4)


def test_who_else_is_in_the_stack_hardly_matters():
    torch.manual_seed(2)
    build, spec = MODELS["mlp"]
    module, config = build(), CONFIGS["plain"]
    data = clients(spec, [20, 9, 33])
    start = FlatModel(module).vector.detach().clone()
    whole, _ = train_stacked(module, start, data, MultiClass(4), config, seeds=[4, 5, 6])
    pair, _ = train_stacked(module, start, data[1:], MultiClass(4), config, seeds=[5, 6])
    assert (whole[1:] - pair).norm() <= TOLERANCE * (pair - start).norm()


@pytest.mark.parametrize("objective", [Binary(), MultiClass(3), Regression(), NextToken()])
def test_gradients_in_closed_form(objective):
    torch.manual_seed(3)
    shapes = {Binary: (7, 1), MultiClass: (7, 3), Regression: (7, 1), NextToken: (7, 5, 3)}
    outputs = torch.randn(shapes[type(objective)])
    targets = torch.randint(0, 2, (7, 5) if isinstance(objective, NextToken) else (7,))
    if isinstance(objective, Binary | Regression):
        targets = targets.float()
    leaf = outputs.clone().requires_grad_()
    losses = objective.loss(leaf, targets)
    (expected,) = torch.autograd.grad(losses.sum(), leaf)
    found, gradient = objective.gradient(outputs, targets)
    torch.testing.assert_close(found, losses.detach())
    torch.testing.assert_close(gradient, expected)


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 99)), st.integers(1, MOST))
@settings(max_examples=100, deadline=None)
def test_stacks_hold_everyone_once_and_are_even(rows, size):
    found = stacks(rows, size)
    assert sorted(c for stack in found for c in stack) == sorted(rows)
    lengths = {len(stack) for stack in found}
    assert not lengths or (max(lengths) <= size and max(lengths) - min(lengths) <= 1)
    assert found == stacks(dict(reversed(rows.items())), size)


def test_dense_layers():
    first, last = nn.Linear(3, 2), nn.Linear(2, 1)
    assert dense_layers(nn.Sequential(nn.Flatten(), first, nn.ReLU(), last)) == [first, last]
    assert dense_layers(first) == [first]
    for other in (
        nn.Sequential(first, last),
        nn.Sequential(first, nn.ReLU()),
        nn.Sequential(first, nn.Tanh(), last),
        nn.Sequential(nn.Linear(3, 1, bias=False)),
        nn.Sequential(),
        nn.Conv2d(1, 1, 1),
    ):
        assert dense_layers(other) == []


@pytest.mark.parametrize(
    ("module", "config", "reason"),
    [
        (nn.Linear(1, 1), TrainConfig(optimizer=Optimizer.adam), "train.optimizer=sgd"),
        (nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.1)), TrainConfig(), "dropout"),
        (nn.LSTM(1, 1), TrainConfig(), "recurrent"),
        (nn.BatchNorm1d(1), TrainConfig(), "buffers"),
        (nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.0)), TrainConfig(), None),
    ],
)
def test_obstacles(module, config, reason):
    found = obstacle(module, config)
    assert found is None if reason is None else reason in found


def test_a_large_model_is_not_stacked():
    assert stack_size(nn.Linear(10, 10)) == MOST
    with torch.device("meta"):
        assert stack_size(nn.Linear(6000, 1000)) == 2
        assert stack_size(nn.Linear(6000, 6000)) == 1
