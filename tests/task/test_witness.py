"""No fast path without a witness: what a user wrote is what is trained."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from conf.schema import TrainConfig
from task.base import Examples, ModelSpec
from task.flat import FlatModel
from task.kernels import Linear, accelerate
from task.models import cnn, cnn1d, conv_dropout, lenet, logistic, mlp, resnet18
from task.objectives import Binary, MultiClass
from task.stacked import train_stacked
from task.stacking import obstacle
from task.training import train
from task.witness import choose_network, stacking_disagrees

ROWS, IMAGE = ModelSpec((6,), 4), ModelSpec((3, 8, 8), 4)
CONFIG = TrainConfig(batch_size=4, lr=0.1, steps=3)


class Twice(nn.Module):
    """One activation, used on a value that is needed again."""

    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()
        self.first = nn.Sequential(nn.Linear(6, 8), self.act)
        self.out = nn.Linear(8, 4)

    def forward(self, x):
        hidden = self.first(x) - 0.5
        return self.out(hidden + 2 * self.act(hidden))


class Keeps(nn.Module):
    """A loop over a sequence's layers that keeps what each returns."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.out = nn.Linear(8, 4)

    def forward(self, x):
        kept = []
        for layer in self.layers:
            x = layer(x)
            kept.append(x)
        return self.out(sum(kept))


class Tenth(nn.Linear):
    def forward(self, x):
        return 0.1 * super().forward(x)


class Shifted(nn.ReLU):
    def forward(self, x):
        return super().forward(x) + 1


class Backwards(nn.Sequential):
    def forward(self, x):
        return super().forward(x.flip(1))


class Normalises(nn.Module):
    """Changes its input in place."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(6, 4)

    def forward(self, x):
        x -= x.mean(1, keepdim=True)
        return self.out(x)


class Views(nn.Module):
    """Reads an image as torch lays it out."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(512, 4)

    def forward(self, x):
        return self.out(self.conv(x).view(len(x), -1))


class Weighted(MultiClass):
    def loss(self, outputs, targets):
        return super().loss(outputs, targets) * (1 + targets)


def tied():
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(6, 4))


def hooked():
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    module[0].register_forward_hook(lambda layer, given, out: 0.5 * out)
    return module


def weight_normed():
    return nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 4)
    )


MODELS = {
    "twice": (Twice, ROWS),
    "keeps": (Keeps, ROWS),
    "subclass of Linear": (lambda: nn.Sequential(Tenth(6, 4)), ROWS),
    "subclass of ReLU": (lambda: nn.Sequential(nn.Linear(6, 8), Shifted(), nn.Linear(8, 4)), ROWS),
    "subclass of Sequential": (lambda: Backwards(nn.Linear(6, 4)), ROWS),
    "input in place": (Normalises, ROWS),
    "views": (Views, IMAGE),
    "tied": (tied, ROWS),
    "hooked": (hooked, ROWS),
    "weight norm": (weight_normed, ROWS),
    "batch norm": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)),
        ROWS,
    ),
    "chain": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), ROWS),
}


def by_torch(module, rows, objective, config):
    """Two steps of what the user wrote, with torch alone."""
    optimizer = torch.optim.SGD(module.parameters(), lr=config.lr)
    module.train()
    for _ in range(2):
        optimizer.zero_grad()
        objective.loss(module(rows.x.clone()), rows.y).mean().backward()
        optimizer.step()
    module.eval()
    return module


@pytest.mark.parametrize("objective", [MultiClass(4), Weighted(4)], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_chosen_trains_and_evaluates_as_torch_does(name, objective):
    build, spec = MODELS[name]
    torch.manual_seed(3)
    module = build()
    config = TrainConfig(batch_size=16, lr=0.1, epochs=2)
    rows = Examples(torch.randn(16, *spec.input_shape), torch.randint(0, 4, (16,)))
    kept = rows.x.clone()
    chosen = choose_network(lambda: copy.deepcopy(module), spec, objective, config)
    model = FlatModel(chosen.module)
    train(model, rows, objective, config, seed=0)
    model.module.eval()
    expected = by_torch(module, rows, objective, config)
    for mine, true in zip(model.state().values(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        outputs = model.module(rows.x)
        torch.testing.assert_close(outputs, expected(rows.x.clone()), rtol=1e-5, atol=1e-5)
    assert torch.equal(rows.x, kept)


@pytest.mark.parametrize("name", MODELS)
def test_clients_in_a_stack_train_as_alone_or_are_refused(name):
    build, spec = MODELS[name]
    torch.manual_seed(3)
    module, objective = build(), Weighted(4)
    if obstacle(module, CONFIG) or stacking_disagrees(module, spec, objective, CONFIG):
        assert name != "chain"
        return
    rows = [Examples(torch.randn(n, *spec.input_shape), torch.randint(0, 4, (n,))) for n in (9, 6)]
    start = FlatModel(copy.deepcopy(module)).vector.detach().clone()
    values, _ = train_stacked(copy.deepcopy(module), start, rows, objective, CONFIG, seeds=(1, 2))
    for found, examples, seed in zip(values, rows, (1, 2), strict=True):
        alone = FlatModel(copy.deepcopy(module))
        train(alone, examples, objective, CONFIG, seed=seed)
        torch.testing.assert_close(found, alone.vector.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "spec"),
    [
        (lambda: mlp.build({"hidden": [8], "dropout": 0.5}, ROWS), ROWS),
        (lambda: logistic.build({}, ROWS), ROWS),
        (lambda: cnn.build({"channels": [8], "hidden": 9, "groups": 4}, IMAGE), IMAGE),
        (lambda: conv_dropout.build({}, IMAGE), IMAGE),
        (lambda: lenet.build({}, ModelSpec((1, 28, 28), 4)), ModelSpec((1, 28, 28), 4)),
        (lambda: resnet18.build({"groups": 32}, ModelSpec((3, 32, 32), 4)),
         ModelSpec((3, 32, 32), 4)),
        (lambda: cnn1d.build({"channels": [8, 8], "kernel": 5, "groups": 4, "dropout": 0.5},
                             ModelSpec((32, 6), 4)), ModelSpec((32, 6), 4)),
    ],
)  # fmt: skip
def test_shipped_models_keep_their_faster_layers(build, spec):
    chosen = choose_network(build, spec, MultiClass(4), CONFIG)
    assert chosen.reason == ""
    assert any(type(layer).__module__ == "task.kernels" for layer in chosen.module.modules())


def test_layers_that_compute_something_else_are_found_out(monkeypatch):
    """The witness bites: a planted fault in a faster layer, forward or backward."""
    plain = Linear.forward
    for planted in (
        lambda self, x: plain(self, x) * 1.001,
        lambda self, x: functional.linear(x, self.weight.detach(), self.bias),
    ):
        monkeypatch.setattr(Linear, "forward", planted)
        build = lambda: nn.Sequential(nn.Flatten(1, 1), nn.Linear(6, 4))  # noqa: E731
        chosen = choose_network(build, ROWS, MultiClass(4), CONFIG)
        assert chosen.reason and not isinstance(chosen.module[1], Linear)


def test_a_users_own_module_is_not_changed():
    module = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    choose_network(lambda: copy.deepcopy(module), ROWS, Binary(), CONFIG)
    assert [type(layer) for layer in module] == [nn.Linear, nn.ReLU] and not module[1].inplace
    assert accelerate(hooked())[0].__class__ is nn.Linear
