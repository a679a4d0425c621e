"""Clipped gradients against Opacus', layer by layer and model by model."""

import copy

import pytest
import torch
from torch import nn

from task.base import Examples, ModelSpec
from task.flat import FlatModel
from task.models import char_transformer, cnn, cnn1d, conv_dropout, lenet, logistic, mlp, resnet18
from task.objectives import MultiClass, NextToken
from task.privacy.clipping import add_clipped_by_opacus
from task.privacy.ghost import UncoveredError, add_clipped, require_covered

IMAGE, SERIES, ROW = ModelSpec((3, 16, 16), 4), ModelSpec((32, 3), 4), ModelSpec((6,), 4)
TEXT = ModelSpec((7,), 11, vocabulary=11)
SMALL = {"channels": [8, 16], "hidden": 9, "groups": 4}


def without_dropout(module):
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return module


MODELS = {
    "logistic": (lambda: logistic.build({}, ROW), ROW),
    "mlp": (lambda: mlp.build({"hidden": [8, 5], "dropout": 0.0}, ROW), ROW),
    "lenet": (lambda: lenet.build({}, IMAGE), IMAGE),
    "conv_dropout": (lambda: without_dropout(conv_dropout.build({}, IMAGE)), IMAGE),
    "cnn": (lambda: cnn.build(SMALL, IMAGE), IMAGE),
    "cnn1d": (lambda: cnn1d.build({**SMALL, "kernel": 3, "dropout": 0.0}, SERIES), SERIES),
    "resnet18": (lambda: resnet18.build({"groups": 32}, IMAGE), IMAGE),
    "char_transformer": (
        lambda: char_transformer.build({"width": 8, "heads": 2, "layers": 1, "dropout": 0.0}, TEXT),
        TEXT,
    ),
    "same": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, (4, 3), padding="same", dilation=(1, 2)), nn.ReLU(),
            nn.Conv2d(4, 2, 3, padding="valid"), nn.Flatten(), nn.LazyLinear(4),
        ),
        IMAGE,
    ),
    "strided": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), bias=False),
            nn.Flatten(), nn.LazyLinear(4),
        ),
        IMAGE,
    ),
}  # fmt: skip


def prepared(name):
    build, spec = MODELS[name]
    torch.manual_seed(0)
    module = build()
    if spec is TEXT:
        x, y = torch.randint(0, 11, (5, 7)), torch.randint(0, 11, (5, 7))
        return module, Examples(x, y), NextToken()
    x = torch.randn(5, *spec.input_shape)
    module(x)
    return module, Examples(x, torch.randint(0, 4, (5,))), MultiClass(4)


def flat(norms):
    return (0.5 / norms.norm(dim=1, keepdim=True)).clamp_max(1.0)


def each(norms):
    return (0.1 / norms.clamp_min(1e-12)).clamp_max(1.0)


@pytest.mark.parametrize("clip", [flat, each])
@pytest.mark.parametrize("name", MODELS)
def test_clipped_gradients_are_those_of_opacus(name, clip):
    module, examples, objective = prepared(name)
    require_covered(module, examples)
    ours, theirs = FlatModel(module), FlatModel(copy.deepcopy(module))
    found = add_clipped(ours.module, examples, objective, clip)
    expected = add_clipped_by_opacus(theirs.module, examples, objective, clip)
    torch.testing.assert_close(found[0], expected[0])
    for one, other in zip(found[1].norm(dim=1), expected[1].norm(dim=1), strict=True):
        assert one == pytest.approx(float(other), rel=1e-4)
    assert (ours.gradient - theirs.gradient).norm() <= 1e-4 * theirs.gradient.norm()
    # Added, not put: a second time doubles them.
    once = ours.gradient.clone()
    add_clipped(ours.module, examples, objective, clip)
    torch.testing.assert_close(ours.gradient, 2 * once)


def test_unclipped_it_is_the_gradient():
    module, examples, objective = prepared("cnn")
    model = FlatModel(module)
    add_clipped(module, examples, objective, lambda norms: torch.ones(len(norms), 1))
    found = model.gradient.clone()
    model.zero_grad()
    objective.loss(module(examples.x), examples.y).sum().backward()
    assert (found - model.gradient).norm() <= 1e-5 * found.norm()


def test_frozen_parameters_are_left_alone():
    module, examples, objective = prepared("mlp")
    next(module.parameters()).requires_grad_(False)
    model = FlatModel(module)
    require_covered(module, examples)
    _, norms = add_clipped(module, examples, objective, flat)
    assert norms.shape == (5, len(list(module.parameters())) - 1) and model.gradient.any()


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(self.layer(x))


TIED = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
TIED[1].weight = TIED[0].weight


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Twice(), "computes more than once"),
        (TIED, "share parameters"),
        (nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True)), "changed in place"),
        (nn.Sequential(nn.Unflatten(1, (6, 1)), nn.Conv1d(6, 6, 1, groups=2)), "another kind"),
        (nn.Bilinear(6, 6, 2), "another kind"),
    ],
)
def test_what_is_not_covered_says_so(module, reason):
    with pytest.raises(UncoveredError, match=reason):
        require_covered(module, Examples(torch.randn(2, 6), torch.zeros(2)))
