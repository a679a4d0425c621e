"""Faster layers compute what torch's compute, and leave everything else as it is."""

import copy

import pytest
import torch
from torch import nn

from conf.schema import TrainConfig
from task import kernels
from task.base import Examples, ModelSpec
from task.chain import chain_of
from task.flat import FlatModel
from task.kernels import accelerate, stepping
from task.models import cnn, conv_dropout, lenet, mlp, resnet18
from task.objectives import MultiClass
from task.training import train


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


IMAGE = ModelSpec((3, 32, 32), 10)
MODELS = {
    "conv_dropout": (lambda: conv_dropout.build({}, IMAGE), IMAGE),
    "lenet": (lambda: lenet.build({}, ModelSpec((1, 28, 28), 10)), ModelSpec((1, 28, 28), 10)),
    "cnn": (lambda: cnn.build({"channels": [8, 16], "hidden": 9, "groups": 4}, IMAGE), IMAGE),
    "resnet18": (lambda: resnet18.build({"groups": 32}, IMAGE), IMAGE),
    "mlp": (
        lambda: mlp.build({"hidden": [8], "dropout": 0.0}, ModelSpec((5,), 3)),
        ModelSpec((5,), 3),
    ),
}


def gradients(model, x, y):
    model.zero_grad()
    outputs = model.module(x)
    nn.functional.cross_entropy(outputs, y).backward()
    return outputs.detach(), model.gradient.clone()


@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients_are_torchs(name):
    """In double precision: in single, a rounding turns some ReLU of a deep network on or off."""
    build, spec = MODELS[name]
    module = build().eval().double()
    plain, fast = FlatModel(copy.deepcopy(module)), FlatModel(accelerate(module))
    x, y = torch.randn(6, *spec.input_shape).double(), torch.randint(0, spec.outputs, (6,))
    for theirs, ours in zip(gradients(plain, x, y), gradients(fast, x, y), strict=True):
        assert (theirs - ours).norm() <= 1e-11 * theirs.norm()
    assert list(module.state_dict()) == list(plain.module.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(fast.module(x), plain.module(x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.999])
@pytest.mark.parametrize("images", [True, False])
def test_dropout_keeps_the_mean_and_drops_the_share(p, images):
    layer = accelerate(nn.Sequential(nn.Dropout(p)))[0]
    x = torch.ones(64, 8, 20, 20) if images else torch.ones(64, 3200)
    if images:
        x = x.to(memory_format=torch.channels_last)
    out = layer(x)
    dropped = float((out == 0).float().mean())
    assert abs(dropped - p) < 5 * (p * (1 - p) / x.numel()) ** 0.5 + 1e-4
    kept = out[out != 0]
    assert kept.unique().numel() == 1 and abs(float(kept[0]) * (1 - p) - 1) < 0.01
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(first, layer(x))
    assert layer.eval()(x) is x


def test_only_what_is_covered_is_exchanged():
    module = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, dilation=2), nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, padding="same"), nn.Dropout(0.0), nn.Linear(2, 2), nn.LSTM(2, 2),
    )  # fmt: skip
    kinds = [type(layer).__module__ for layer in accelerate(module)]
    ours = [kind == "task.kernels" for kind in kinds]
    assert ours == [False, False, True, False, False, True, False]


def test_only_relu_right_after_our_layers_works_in_place():
    module = accelerate(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.ReLU()))
    assert [layer.inplace for layer in module[1:]] == [True, False]


def test_training_with_dropout_depends_on_the_seed_only():
    model = FlatModel(accelerate(conv_dropout.build({}, ModelSpec((1, 8, 8), 3))))
    examples = Examples(torch.randn(9, 1, 8, 8), torch.randint(0, 3, (9,)))
    start = model.vector.detach().clone()
    found = []
    for seed in (1, 2, 1):
        model.vector.data.copy_(start)
        train(model, examples, MultiClass(3), TrainConfig(batch_size=4), seed=seed)
        found.append(model.vector.detach().clone())
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])


@pytest.mark.parametrize("name", MODELS)
def test_steps_taken_in_backward_are_those_of_sgd(name):
    """Batch by batch against torch's own layers and optimiser."""
    build, spec = MODELS[name]
    module = build().eval().double()
    plain, fast = copy.deepcopy(module), FlatModel(accelerate(module))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    start = fast.vector.detach().clone()
    with stepping(fast.module, 0.1) as rest:
        assert len(rest) < len(list(plain.parameters()))
        for _ in range(3):
            x, y = torch.randn(6, *spec.input_shape).double(), torch.randint(0, spec.outputs, (6,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(plain(x), y).backward()
            optimizer.step()
            torch._foreach_zero_([p.grad for p in rest])
            nn.functional.cross_entropy(fast.module(x), y).backward()
            torch._foreach_add_([p.data for p in rest], [p.grad for p in rest], alpha=-0.1)
    expected = torch.cat([p.detach().reshape(-1) for p in plain.parameters()])
    assert (fast.vector - expected).norm() <= 1e-10 * (expected - start).norm()
    # Nothing of it lasts: gradients are gradients again.
    fast.zero_grad()
    nn.functional.cross_entropy(fast.module(x), y).backward()
    last = [layer for layer in fast.module.modules() if isinstance(layer, kernels.Linear)][-1]
    assert last.weight.grad.any()


def test_rows_with_more_dimensions_step_as_well():
    plain, fast = nn.Linear(3, 2), FlatModel(accelerate(nn.Linear(3, 2)))
    fast.vector.data.copy_(torch.cat([p.detach().reshape(-1) for p in plain.parameters()]))
    x = torch.randn(4, 5, 3)
    with stepping(fast.module, 0.5) as (bias,):
        fast.module(x).square().sum().backward()
        bias.data.sub_(bias.grad, alpha=0.5)
    plain(x).square().sum().backward()
    torch.testing.assert_close(fast.module.weight, plain.weight - 0.5 * plain.weight.grad)
    torch.testing.assert_close(fast.module.bias, plain.bias - 0.5 * plain.bias.grad)


def test_layers_that_compute_more_than_once_take_no_step():
    shared = nn.Linear(3, 3)
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight

    class Unknown(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

    for module in (nn.Sequential(shared, shared), tied, Unknown()):
        with stepping(accelerate(module), 0.1) as rest:
            assert len(rest) == len(list(module.parameters()))


def test_a_layer_used_twice_gets_both_gradients():
    layer = nn.Linear(3, 3)
    plain, fast = FlatModel(copy.deepcopy(layer)), FlatModel(accelerate(layer))
    x = torch.randn(4, 3)
    for model in (plain, fast):
        model.zero_grad()
        model.module(model.module(x)).square().sum().backward()
    torch.testing.assert_close(fast.gradient, plain.gradient)


def test_values_of_half_the_length_are_left_to_torch():
    build, spec = MODELS["conv_dropout"]
    module = accelerate(build().bfloat16())
    x = torch.randn(2, *spec.input_shape, dtype=torch.bfloat16)
    with stepping(module, 0.1) as rest:
        assert len(rest) == len(list(module.parameters()))
        module(x).sum().backward()
    assert chain_of(module, x) is None
