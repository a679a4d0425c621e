"""Clipping that truly bounds: attacks by models that mix rows, overflow, cancel out or remember."""

import copy
import math

import pytest
import torch
from torch import nn

from conf.errors import FedproofError
from conf.schema import TrainConfig
from task.base import Examples
from task.flat import FlatModel
from task.objectives import MultiClass, Regression
from task.privacy import clipping, dpsgd, independence
from task.privacy.clipping import add_clipped_by_opacus, clipper_for
from task.privacy.dpsgd import Mechanism, _Clipping, train_privately
from task.privacy.ghost import add_clipped
from task.privacy.noise import SecureNoise
from task.privacy.one_by_one import add_one_by_one
from tests.task.privacy import user_models
from tests.task.privacy.user_models import (
    AttentionOverBatch,
    BatchStatistics,
    Centred,
    CentredIfMany,
    Cumulative,
    InPlaceInput,
    LargestOfBatch,
    Masked,
    Noisy,
    OwnDropout,
    PerBatchSize,
    Remembering,
    RunningMean,
    RunningMost,
    Scaled,
    Squeezed,
    verdict,
)

WAYS = [add_clipped, add_clipped_by_opacus, add_one_by_one]
LIMIT = 0.1


def data(rows=6, features=6):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, features, generator=generator)
    return Examples(x, torch.randint(0, 4, (rows,), generator=generator))


def summed(way, module, examples, objective, *, limit=LIMIT, per_layer=False):
    model = FlatModel(copy.deepcopy(module))
    clip = _Clipping(Mechanism(1.0, limit, per_layer, 1.0, 1), None).factors
    if len(examples):
        way(model.module, examples, objective, clip)
    return model.gradient.double()


def part(examples, rows):
    return Examples(examples.x[rows], examples.y[rows])


def mlp():
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


# Random user-like models -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(48))
def test_models_of_users_are_right_or_refused(seed):
    """A part of what ``python -m tests.task.privacy.user_models 1000`` does."""
    found = verdict(seed)
    assert not found.wrong, found
    assert bool(found.way) != bool(found.reason)


def test_the_harness_bites(monkeypatch):
    """Without the check, models are accepted whose rows move sums beyond the clip."""
    monkeypatch.setattr(user_models, "clipper_for", lambda *_: add_clipped)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), Centred(), nn.Linear(8, 4))
    kind = (lambda _: module, user_models.rows, MultiClass(4))
    monkeypatch.setattr(user_models, "KINDS", {"rows": kind})
    assert verdict(1).wrong


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (BatchStatistics(), r"BatchStatistics \(1\) mixes examples"),
        (Centred(), r"Centred \(1\) mixes examples"),
        (CentredIfMany(), r"CentredIfMany \(1\) mixes examples"),
        (AttentionOverBatch(), r"AttentionOverBatch \(1\) mixes examples"),
        (LargestOfBatch(), r"LargestOfBatch \(1\) mixes examples"),
        (Cumulative(), r"Cumulative \(1\) mixes examples"),
        (PerBatchSize(), "Sequential computes something else for an example if it is in another"),
        (RunningMean(), "its buffer 1.seen changes in training and would leave without noise"),
        (RunningMost(), "its buffer 1.most changes in training"),
        (Remembering(), r"Remembering \(1\) mixes examples"),
        (nn.BatchNorm1d(8), "BatchNorm1d mixes examples: choose GroupNorm"),
        (nn.BatchNorm1d(8, track_running_stats=False), "BatchNorm1d .* choose GroupNorm"),
        (nn.LSTM(8, 8), "Sequential cannot compute|does not return one output"),
    ],
)
def test_layers_that_mix_examples_are_refused_by_name(layer, reason):
    module = nn.Sequential(nn.Linear(6, 8), layer, nn.Linear(8, 4))
    with pytest.raises(
        FedproofError, match=f"^privacy=record_dp does not fit .*: ({reason}).*\\.$"
    ):
        clipper_for(module, data())


def test_a_batch_of_one_must_be_computed_as_any_other():
    with pytest.raises(FedproofError, match="does not return one output|another batch"):
        clipper_for(nn.Sequential(nn.Linear(6, 4), Squeezed()), data())


def test_a_model_that_changes_its_input_is_refused():
    with pytest.raises(FedproofError, match="changes its input"):
        clipper_for(nn.Sequential(InPlaceInput(), nn.Linear(6, 4)), data())


def test_a_loss_that_mixes_examples_is_refused():
    class Mean(MultiClass):
        def loss(self, outputs, targets):
            losses = super().loss(outputs, targets)
            return losses - losses.mean()

    class Single(MultiClass):
        def loss(self, outputs, targets):
            return super().loss(outputs, targets).mean()

    for objective, reason in ((Mean(4), "loss mixes"), (Single(4), "one number per example")):
        with pytest.raises(FedproofError, match=reason):
            clipper_for(mlp(), data(), objective)


@pytest.mark.parametrize(
    ("module", "way"),
    [
        (mlp(), add_clipped),
        (nn.Sequential(nn.Linear(6, 8), nn.GroupNorm(2, 8), nn.Linear(8, 4)), add_clipped),
        (
            nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), OwnDropout(), nn.Linear(8, 4)),
            add_clipped,
        ),
        (nn.Sequential(nn.Linear(6, 8), Noisy(), nn.Linear(8, 4)), add_clipped),
        (nn.Sequential(Masked(6, 8), nn.Linear(8, 4)), add_one_by_one),
        (nn.Sequential(Scaled(6, 8), nn.Linear(8, 4)), add_clipped_by_opacus),
        (nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 4)), add_one_by_one),
    ],
)
def test_the_fastest_way_that_is_right_is_chosen(module, way):
    assert clipper_for(module, data()) is way


def test_a_layer_that_opacus_knows_is_left_to_it():
    module = nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 2, 2, groups=2), nn.Flatten(), nn.Linear(4, 4)
    )
    assert clipper_for(module, data()) is add_clipped_by_opacus


def test_the_check_leaves_the_model_as_it_was_and_is_made_once(monkeypatch):
    model = FlatModel(nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 4)))
    model.gradient.fill_(7.0)
    model.module.eval()
    before, state = model.vector.detach().clone(), torch.get_rng_state()
    asked = []
    real = independence.probing
    monkeypatch.setattr(clipping, "probing", lambda *told: asked.append(1) or real(*told))
    for _ in range(2):
        clipper_for(model.module, data(), MultiClass(4))
    assert len(asked) == 1
    assert torch.equal(model.vector, before) and (model.gradient == 7.0).all()
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m.training for m in model.module.modules())
    # The parameters are views still.
    model.vector.data.zero_()
    assert not next(model.module.parameters()).any()


def test_what_is_refused_leaves_the_model_as_it_was():
    module = nn.Sequential(nn.Linear(6, 8), RunningMean(), nn.Linear(8, 4))
    kept, buffer = copy.deepcopy(module.state_dict()), module[1].seen
    with pytest.raises(FedproofError):
        clipper_for(module, data())
    assert all(torch.equal(kept[key], value) for key, value in module.state_dict().items())
    assert module[1].seen is buffer


def test_the_verdict_depends_on_neither_rows_nor_weights():
    module = nn.Sequential(nn.Linear(6, 8), Centred(), nn.Linear(8, 4))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()  # as a server may send them: nothing mixes what is zero
    crafted = Examples(torch.full((3, 6), math.nan), torch.zeros(3, dtype=torch.long))
    with pytest.raises(FedproofError, match="Centred"):
        clipper_for(module, crafted)


# Numbers that overflow, vanish or cancel out ----------------------------------------------------


class Overflow(nn.Module):
    """The server's question: is there a row whose first feature is above a threshold?"""

    def __init__(self, threshold=1.5):
        super().__init__()
        self.first, self.last = nn.Linear(6, 2), nn.Linear(2, 4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self.first.weight[:, 0], self.first.bias[:] = 1e6, -1e6 * threshold
            self.last.weight[0] = torch.tensor([3e38, -3e38])

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [2.0, 1e30, math.inf, math.nan])
def test_a_row_that_overflows_counts_as_zero(way, value, per_layer):
    examples = data()
    examples.x[:, 0].clamp_(max=1.0)
    module = Overflow()
    examples.x[2, 0] = value
    whole = summed(way, module, examples, MultiClass(4), per_layer=per_layer)
    rest = summed(way, module, part(examples, [0, 1, 3, 4, 5]), MultiClass(4), per_layer=per_layer)
    assert whole.isfinite().all() and rest.any()
    torch.testing.assert_close(whole, rest)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", [math.nan, math.inf, 3e38])
def test_a_target_that_is_not_finite_or_whose_loss_is_not_counts_as_zero(way, target):
    module = nn.Linear(6, 1)
    x, y = data().x, torch.ones(6)
    y[1] = target
    whole = summed(way, module, Examples(x, y), Regression())
    rest = summed(way, module, part(Examples(x, y), [0, 2, 3, 4, 5]), Regression())
    torch.testing.assert_close(whole, rest)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e15, 1e18, 1e25, 1e30])
def test_gradients_of_any_size_are_clipped_right(way, per_layer, scale):
    """A squared error of a row with features of that size has a gradient that large."""
    examples = Examples(data().x, torch.ones(6))
    examples.x[3] *= scale
    module = nn.Linear(6, 1, bias=False)
    with torch.no_grad():
        module.weight.zero_()
    whole = summed(way, module, examples, Regression(), per_layer=per_layer)
    rest = summed(way, module, part(examples, [0, 1, 2, 4, 5]), Regression(), per_layer=per_layer)
    row = 2 * -examples.x[3].double()
    wanted = row * min(1.0, LIMIT / float(row.norm()))
    assert (whole - rest).norm() <= LIMIT * (1 + 1e-5)
    torch.testing.assert_close(whole - rest, wanted, rtol=1e-5, atol=1e-8)
    alone = summed(way, module, part(examples, [3]), Regression(), per_layer=per_layer)
    torch.testing.assert_close(alone, wanted, rtol=1e-5, atol=0.0)


class Places(nn.Module):
    """One layer at several places of each row, whose gradients nearly cancel out."""

    def __init__(self, places=4, width=40):
        super().__init__()
        self.layer = nn.Linear(width, width)
        self.signs = torch.tensor([1.0, -1.0]).repeat(places // 2).view(-1, 1)

    def forward(self, x):
        inner = self.layer(x)
        return (inner * self.signs).sum((1, 2))


@pytest.mark.parametrize("way", WAYS)
def test_gradients_that_cancel_out_are_bounded(way):
    """The norm is found from products that are 10^12 times as large: rounding would hide it."""
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(6, 1, 40, generator=generator) * 1e3
    x = base + 1e-1 * torch.randn(6, 4, 40, generator=generator)
    examples = Examples(x, torch.full((6,), 99.0))
    torch.manual_seed(0)
    module = Places()
    for row in range(6):
        alone = summed(way, module, part(examples, [row]), Regression())
        assert 0 < alone.norm() <= LIMIT * (1 + 1e-5)


def test_layers_are_used_for_some_rows_only():
    """A router by row: what the check saw is not what training does."""

    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.last = nn.Linear(6, 6), nn.Linear(6, 4)

        def forward(self, x):
            chosen = x[:, 0] > 50
            if chosen.any():
                x = torch.where(chosen.unsqueeze(1), self.one(self.one(x)), x)
            return self.last(x)

    module, examples = Routed(), data()
    examples.x[2, 0] = 100.0
    way = clipper_for(module, data())
    for row in range(6):
        keep = [i for i in range(6) if i != row]
        moved = summed(way, module, examples, MultiClass(4)) - summed(
            way, module, part(examples, keep), MultiClass(4)
        )
        assert moved.norm() <= LIMIT * (1 + 1e-5)


def released(module, examples, mechanism, key, monkeypatch):
    monkeypatch.setattr(dpsgd, "SecureNoise", lambda: SecureNoise(key))
    model = FlatModel(copy.deepcopy(module))
    start = model.vector.detach().clone()
    train_privately(model, examples, MultiClass(4), TrainConfig(lr=1.0), mechanism, seed=0)
    return (start.double() - model.vector.detach().double()) * mechanism.rows


@pytest.mark.parametrize("value", [1e30, math.inf, math.nan, 2.0, 0.0])
@pytest.mark.parametrize("module", [Overflow(), mlp()])
def test_neighbours_with_the_same_noise_differ_by_no_more_than_the_clip(module, value, monkeypatch):
    """Finding 3: whether a silo answers NaN told whether it has a row beyond a half-space."""
    mechanism = Mechanism(2.0, LIMIT, False, 1.0, 1, rows=6)
    ordinary, crafted = data(), data()
    crafted.x[4] = value
    one, other = (
        released(module, examples, mechanism, bytes(32), monkeypatch)
        for examples in (ordinary, crafted)
    )
    # Parameters of 3e38 leave no digit of a gradient of 0.1; what is left is compared.
    assert torch.equal(one.isfinite(), other.isfinite())
    finite = one.isfinite()
    assert (one - other)[finite].norm() <= 2 * LIMIT * (1 + 1e-4)


def test_the_divisor_is_the_mechanisms(monkeypatch):
    """Two silos that differ in a row divide by the same number."""
    mechanism = Mechanism(0.0, LIMIT, False, 1.0, 1, rows=10)
    whole = released(mlp(), data(6), mechanism, bytes(32), monkeypatch)
    torch.testing.assert_close(
        whole, summed(add_clipped, mlp(), data(6), MultiClass(4)), rtol=1e-4, atol=1e-6
    )
