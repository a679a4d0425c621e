"""Clients trained together end where they end when each trains alone."""

import pytest
import torch

from conf.schema import TrainConfig
from task.base import Examples, ModelSpec
from task.flat import FlatModel
from task.models import cnn, logistic, mlp
from task.objectives import Binary, MultiClass, NextToken, Regression
from task.stacked import train_stacked
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


@pytest.mark.parametrize("objective", [Binary(), MultiClass(3), Regression()])
def test_the_derivative_of_many_models_is_each_ones_own(objective):
    generator = torch.Generator().manual_seed(4)
    outputs = torch.randn(2, 5, 3 if isinstance(objective, MultiClass) else 1, generator=generator)
    targets = torch.randint(0, 2, (2, 3, 5), generator=generator)
    if not isinstance(objective, MultiClass):
        targets = targets.float()
    share = torch.rand(2, 3, 5, generator=generator)
    share[1, 2, 3:] = 0.0
    derive = objective.weighted(targets, share)
    for step in range(3):
        losses, derivative = derive(step, outputs)
        for model in range(2):
            found, rows = objective.gradient(outputs[model], targets[model, step])
            weights = share[model, step]
            torch.testing.assert_close(losses[model], found @ weights)
            torch.testing.assert_close(derivative[model], rows * weights.unsqueeze(1))
