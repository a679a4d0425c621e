"""Random models as users write them: layers, habits and faults, put together by chance.

Run ``python -m tests.task.privacy.user_models COUNT`` for a recorded run: every model is either
refused, or its sensitivity and gradients are measured by other code than the product's.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from conf.errors import FedproofError
from task.base import Examples
from task.flat import FlatModel
from task.objectives import MultiClass, NextToken
from task.privacy.dpsgd import Mechanism, _Clipping, clipper_for

CLASSES, VOCABULARY, WIDTH = 4, 11, 8
ROWS = 5


class Masked(nn.Linear):
    """A pruned layer."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.register_buffer("mask", (torch.rand(outputs, inputs) < 0.5).float())

    def forward(self, x):
        return functional.linear(x, self.weight * self.mask, self.bias)


class Scaled(nn.Linear):
    """A layer that changes its result."""

    def forward(self, x):
        return super().forward(x) * 3


class Renamed(nn.Linear):
    """A subclass that does what its class does."""


class BatchStatistics(nn.Module):
    def forward(self, x):
        return functional.batch_norm(x, None, None, training=True)


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0, keepdim=True)


class CentredIfMany(nn.Module):
    def forward(self, x):
        return x - x.mean(0) if len(x) > 1 else x


class AttentionOverBatch(nn.Module):
    def forward(self, x):
        flat = x.flatten(1)
        return (torch.softmax(flat @ flat.t(), 1) @ flat).view_as(x)


class RunningMean(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.seen = 0.9 * self.seen + 0.1 * x.detach().mean()
        return x - self.seen


class RunningMost(nn.Module):
    """A largest value so far, in a buffer that a second look at the same rows leaves alone."""

    def __init__(self):
        super().__init__()
        self.register_buffer("most", torch.ones(()))

    def forward(self, x):
        self.most.copy_(torch.maximum(self.most, x.detach().abs().max()))
        return x / self.most


class Remembering(nn.Module):
    """Keeps the last batch in an attribute that no state dict shows."""

    last = None

    def forward(self, x):
        before, self.last = self.last, x.detach().mean()
        return x if before is None else x + 0.1 * before


class LargestOfBatch(nn.Module):
    def forward(self, x):
        return x / x.abs().max().clamp_min(1e-6)


class Cumulative(nn.Module):
    def forward(self, x):
        return x.cumsum(0)


class Shuffled(nn.Module):
    def forward(self, x):
        return x.roll(1, 0)


class PerBatchSize(nn.Module):
    def forward(self, x):
        return x / len(x)


class InPlaceInput(nn.Module):
    def forward(self, x):
        return x.mul_(0.5) if not x.requires_grad else x * 0.5


class OwnDropout(nn.Module):
    def forward(self, x):
        return functional.dropout(x, 0.4, self.training)


class Noisy(nn.Module):
    def forward(self, x):
        return x + 0.1 * torch.randn_like(x) if self.training else x


class OwnScale(nn.Module):
    """A parameter that belongs to no layer."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * self.scale


class Squeezed(nn.Module):
    """A habit that loses the batch axis of one row."""

    def forward(self, x):
        return x.unsqueeze(1).squeeze()


def _hooked(layer):
    layer.register_forward_hook(lambda _, __, output: output * 2)
    return layer


def _pre_hooked(layer):
    layer.register_forward_pre_hook(lambda _, given: (given[0] * 2,))
    return layer


def _gradient_hooked(layer):
    layer.weight.register_hook(lambda gradient: gradient * 2)
    return layer


def _replaced(layer):
    layer.forward = lambda x: functional.linear(x, layer.weight * 2, layer.bias)
    return layer


class Twice(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.two(functional.relu(self.one(x)))


class FunctionalWeight(nn.Module):
    """Uses its layer's weight once more, by function."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x):
        return functional.linear(torch.tanh(self.layer(x)), self.layer.weight)


def _dense(rng, width, following):
    """Return a layer from some width to another, as plain or as strange as chance has it."""
    linear = nn.Linear(width, following, bias=rng.random() < 0.8)
    return rng.choice(
        [lambda: linear] * 8
        + [
            lambda: Masked(width, following),
            lambda: Scaled(width, following),
            lambda: Renamed(width, following),
            lambda: nn.utils.parametrizations.weight_norm(linear),
            lambda: nn.utils.parametrizations.spectral_norm(linear),
            lambda: nn.utils.parametrizations.orthogonal(linear),
            lambda: _hooked(linear),
            lambda: _pre_hooked(linear),
            lambda: _gradient_hooked(linear),
            lambda: _replaced(linear),
            lambda: nn.Sequential(linear, nn.GroupNorm(2, following)),
            lambda: nn.Sequential(linear, nn.LayerNorm(following)),
            lambda: nn.Sequential(linear, nn.BatchNorm1d(following)),
            lambda: nn.Sequential(linear, Twice(following)),
            lambda: nn.Sequential(linear, Residual(following)),
            lambda: nn.Sequential(linear, FunctionalWeight(following)),
        ]
    )()


_PASSING = [
    *[nn.ReLU, nn.Tanh, nn.GELU, nn.Identity, nn.SiLU] * 3,
    lambda: nn.ReLU(inplace=True), lambda: nn.Dropout(0.3), lambda: nn.AlphaDropout(0.3),
    nn.RReLU, nn.PReLU, OwnDropout, Noisy, OwnScale, BatchStatistics, Centred, CentredIfMany,
    AttentionOverBatch, RunningMean, RunningMost, Remembering, LargestOfBatch, Cumulative,
    Shuffled, PerBatchSize, InPlaceInput, Squeezed,
]  # fmt: skip


def _passing(rng):
    return rng.choice(_PASSING)()


def rows_model(rng):
    """Return a model of rows of six features."""
    width, layers = 6, []
    for _ in range(rng.randint(1, 3)):
        layers += [_dense(rng, width, WIDTH), _passing(rng)]
        width = WIDTH
    if rng.random() < 0.2 and len(layers) > 2:
        layers.append(layers[2])
    return nn.Sequential(*layers, nn.Linear(width, CLASSES))


def _convolution(rng, channels, width):
    groups = rng.choice([1, 1, 1, channels])
    mode = rng.choice(["zeros", "zeros", "zeros", "circular", "reflect"])
    kernel = rng.choice([1, 3])
    return nn.Conv2d(
        channels, width * channels, kernel, stride=rng.choice([1, 2]),
        padding=rng.choice([0, kernel // 2]), groups=groups, padding_mode=mode,
        dilation=rng.choice([1, 1, 2]), bias=rng.random() < 0.7,
    )  # fmt: skip


def images_model(rng):
    """Return a model of images of three channels and 9×9 pixels."""
    norms = [
        nn.Identity, nn.Identity, lambda: nn.GroupNorm(3, 6), lambda: nn.BatchNorm2d(6),
        lambda: nn.InstanceNorm2d(6, affine=True),
        lambda: nn.InstanceNorm2d(6, track_running_stats=True),
    ]  # fmt: skip
    pools = [nn.Identity, lambda: nn.MaxPool2d(2), lambda: nn.AdaptiveAvgPool2d(2)]
    layers = [_convolution(rng, 3, 2), rng.choice(norms)(), _passing(rng), rng.choice(pools)()]
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(CLASSES))


class Text(nn.Module):
    """A model of sequences; `layout` says which axis is which inside."""

    def __init__(self, layout, inner, tied):
        super().__init__()
        self.layout, self.tied = layout, tied
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.inner = inner
        if not tied:
            self.output = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, x):
        shape = x.shape
        x = {"time first": x.t, "flattened": x.flatten}.get(self.layout, lambda: x)()
        hidden = self.inner(self.embedding(x))
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        weight = self.embedding.weight
        logits = functional.linear(hidden, weight) if self.tied else self.output(hidden)
        if self.layout == "time first":
            return logits.transpose(0, 1)
        return logits.view(*shape, VOCABULARY)


class Attention(nn.Module):
    def __init__(self, first):
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, dropout=0.2, batch_first=first)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


def text_model(rng):
    """Return a language model."""
    layout = rng.choice(["batch first", "batch first", "time first", "flattened"])
    inner = [nn.Identity, lambda: nn.Linear(WIDTH, WIDTH), lambda: _passing(rng)]
    if layout != "flattened":
        inner += [
            lambda: nn.LSTM(WIDTH, WIDTH, batch_first=rng.random() < 0.5),
            lambda: nn.GRU(WIDTH, WIDTH, batch_first=rng.random() < 0.5, dropout=0.0),
            lambda: Attention(rng.random() < 0.5),
            lambda: nn.TransformerEncoderLayer(
                WIDTH, 2, 16, dropout=0.1, batch_first=rng.random() < 0.5
            ),
        ]
    return Text(layout, rng.choice(inner)(), rng.random() < 0.2)


def rows(generator):
    x = torch.randn(ROWS, 6, generator=generator) * 2
    return Examples(x, torch.randint(0, CLASSES, (ROWS,), generator=generator))


def images(generator):
    x = torch.randn(ROWS, 3, 9, 9, generator=generator)
    return Examples(x, torch.randint(0, CLASSES, (ROWS,), generator=generator))


def texts(generator):
    x, y = torch.randint(0, VOCABULARY, (2, ROWS, 7), generator=generator)
    return Examples(x, y)


KINDS = {
    "rows": (rows_model, rows, MultiClass(CLASSES)),
    "images": (images_model, images, MultiClass(CLASSES)),
    "text": (text_model, texts, NextToken()),
}


@dataclass
class Verdict:
    """What became of one model.

    Attributes
    ----------
    seed : int
        By which it is made again.
    way : str
        How it is clipped; empty if it is refused.
    reason : str
        Why it is refused.
    sensitivity : float
        Largest movement of the clipped sum by one row, over the clip.
    error : float
        Of the unclipped sum, over the gradient's norm.
    """

    seed: int
    way: str = ""
    reason: str = ""
    sensitivity: float = 0.0
    error: float = 0.0

    @property
    def wrong(self) -> bool:
        """Whether it should not have been accepted."""
        return bool(self.way) and (self.sensitivity > 1 + 1e-5 or self.error > 1e-3)


def verdict(seed):
    """Make a model, ask the product for a way to clip, and measure that on other rows."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    make, data, objective = KINDS[rng.choice(list(KINDS))]
    module, examples = make(rng), data(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        module.eval()(examples.x.clone())  # lazy layers learn their sizes
    model = FlatModel(module)
    model.module.train()
    try:
        clipper = clipper_for(model.module, examples, objective)
    except FedproofError as error:
        return Verdict(seed, reason=str(error))
    way = getattr(clipper, "__name__", str(clipper))
    return Verdict(seed, way, "", _sensitivity(model, examples, objective, clipper),
                   _error(model, examples, objective, clipper))  # fmt: skip


def _quiet(model):
    """Switch dropout off: sums can be compared only with the same random numbers."""
    for layer in model.module.modules():
        if isinstance(layer, nn.Dropout | nn.AlphaDropout | nn.RReLU | OwnDropout | Noisy):
            layer.training = False
        if isinstance(layer, nn.MultiheadAttention):
            layer.dropout = 0.0


def _summed(model, examples, objective, clipper, clip):
    model.zero_grad()
    clipper(model.module, examples, objective, clip)
    return model.gradient.double().clone()


def _sensitivity(model, examples, objective, clipper):
    _quiet(model)
    worst = 0.0
    for per_layer in (False, True):
        for limit in (0.01, 0.3):
            clip = _Clipping(Mechanism(1.0, limit, per_layer, 1.0, 1), None).factors
            whole = _summed(model, examples, objective, clipper, clip)
            for row in range(ROWS):
                keep = [i for i in range(ROWS) if i != row]
                rest = Examples(examples.x[keep], examples.y[keep])
                part = _summed(model, rest, objective, clipper, clip)
                worst = max(worst, float((whole - part).norm()) / limit)
    return worst


def _error(model, examples, objective, clipper):
    found = _summed(model, examples, objective, clipper, lambda n: torch.ones(len(n), 1))
    model.zero_grad()
    objective.loss(model.module(examples.x), examples.y).sum().backward()
    true = model.gradient.double()
    return float((found - true).norm() / true.norm().clamp_min(1e-12))


def main():
    """Judge as many models as the command line says, and print a summary."""
    parser = argparse.ArgumentParser(prog="python -m tests.task.privacy.user_models")
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    told = parser.parse_args()
    torch.set_num_threads(1)
    verdicts = [verdict(seed) for seed in range(told.first, told.first + told.count)]
    accepted = [v for v in verdicts if v.way]
    summary = {
        "models": len(verdicts),
        "accepted": dict(Counter(v.way for v in accepted)),
        "refused": len(verdicts) - len(accepted),
        "largest sensitivity over clip": max(v.sensitivity for v in accepted),
        "largest error of gradients": max(v.error for v in accepted),
        "wrong": [vars(v) for v in accepted if v.wrong],
        "reasons": dict(Counter(v.reason for v in verdicts if v.reason).most_common(25)),
    }
    print(json.dumps(summary, indent=2))
    sys.exit(bool(summary["wrong"]))


if __name__ == "__main__":
    main()
