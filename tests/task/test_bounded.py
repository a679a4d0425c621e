import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from conf.errors import FedproofError
from task.base import Examples
from task.bounded import GRID, BoundedBinary
from task.evaluation import bounded_of, bounded_sums
from task.objectives import Binary, MultiClass, NextToken, Objective, Regression

OBJECTIVES: list[Objective] = [Binary(), MultiClass(5), NextToken()]
ODD = [0.0, 1.0, -1.0, 1e38, -1e38, math.inf, -math.inf, math.nan]


def shapes(objective: Objective, rows: int) -> tuple[tuple[int, ...], torch.Tensor]:
    """The shape of outputs, and targets that fit."""
    if isinstance(objective, Binary):
        return (rows, 1), torch.arange(rows) % 2
    if isinstance(objective, MultiClass):
        return (rows, 5), torch.arange(rows) % 5
    targets = torch.arange(rows * 6).reshape(rows, 6) % 4
    targets[:, 4] = NextToken.IGNORED
    targets[0] = NextToken.IGNORED
    return (rows, 6, 4), targets


def weighted(sums, bounded):
    """The vector that noise of one deviation is added to."""
    return np.concatenate([b.weight * np.array(sums[n]) for n, b in bounded.blocks.items()])


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
@given(data=st.data())
def test_no_row_contributes_more_than_the_sensitivity(objective, data):
    shape, targets = shapes(objective, 4)
    values = st.one_of(st.sampled_from(ODD), st.floats(width=32))
    outputs = torch.from_numpy(data.draw(arrays.arrays(np.float32, shape, elements=values)))
    bounded = bounded_of(objective)
    losses = objective.loss(outputs, targets)
    parts = bounded.contributions(outputs, targets, losses)
    assert {n: p.shape[1] for n, p in parts.items()} == {
        n: b.length for n, b in bounded.blocks.items()
    }
    for row in range(4):
        vector = weighted({n: p[row] for n, p in parts.items()}, bounded)
        assert np.linalg.norm(vector) <= bounded.sensitivity
        assert (vector >= 0).all()
    for part in parts.values():
        assert torch.equal(part * GRID, (part * GRID).round())


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_without_noise_the_metrics_are_those_of_the_rows(objective):
    torch.manual_seed(1)
    shape, targets = shapes(objective, 400)
    if isinstance(objective, NextToken):
        # Where all rows are as long, a mean over rows is one over tokens.
        targets[0] = targets[1]
    outputs = torch.randn(shape)
    bounded = bounded_of(objective)
    parts = bounded.contributions(outputs, targets, objective.loss(outputs, targets))
    sums = {name: part.sum(0).tolist() for name, part in parts.items()}
    found, expected = bounded.read(sums, 0.0), objective.metrics(outputs, targets)
    # Average precision follows from no few bins.
    assert set(found.metrics) == set(expected) - {"average_precision"}
    assert set(found.errors) == {"accuracy", "loss", "auroc"} & set(expected)
    assert max(found.errors.values()) == 0
    for name, value in found.metrics.items():
        # A score is known up to its bin.
        most = {"auroc": 0.01, "perplexity": 1e-3}.get(name, 1e-5)
        assert value == pytest.approx(expected[name], abs=most), name


def test_standard_errors_are_those_of_many_draws():
    torch.manual_seed(1)
    chance = np.random.default_rng(2)
    for objective in OBJECTIVES:
        shape, targets = shapes(objective, 500)
        outputs = torch.randn(shape)
        bounded = bounded_of(objective)
        parts = bounded.contributions(outputs, targets, objective.loss(outputs, targets))
        exact = {name: part.sum(0).numpy() for name, part in parts.items()}
        drawn, deviation = [], 8.0
        for _ in range(400):
            sums = {
                name: (exact[name] + chance.normal(0, deviation / b.weight, b.length)).tolist()
                for name, b in bounded.blocks.items()
            }
            drawn.append(bounded.read(sums, deviation))
        for name, told in bounded.read(
            {k: v.tolist() for k, v in exact.items()}, deviation
        ).errors.items():
            seen = np.std([each.metrics[name] for each in drawn])
            assert seen == pytest.approx(told, rel=0.15), (type(objective).__name__, name)
            means = np.mean([each.metrics[name] for each in drawn])
            truth = bounded.read({k: v.tolist() for k, v in exact.items()}, 0.0).metrics[name]
            assert abs(means - truth) < 4 * told / math.sqrt(400) + 0.02 * told


@given(st.data())
def test_whatever_noise_leaves_metrics_are_possible(data):
    for objective in OBJECTIVES:
        bounded = bounded_of(objective)
        number = st.floats(-1e6, 1e6)
        sums = {
            name: data.draw(st.lists(number, min_size=b.length, max_size=b.length))
            for name, b in bounded.blocks.items()
        }
        found = bounded.read(sums, data.draw(st.floats(0, 1e4)))
        assert all(math.isfinite(v) and v >= 0 for v in found.metrics.values())
        assert all(
            v <= 1 + 1e-9 for k, v in found.metrics.items() if k not in {"loss", "perplexity"}
        )


def test_noise_that_hides_all_rows_tells_nothing():
    bounded = BoundedBinary()
    few = {name: [0.0] * block.length for name, block in bounded.blocks.items()}
    assert bounded.read(few, 10.0).metrics == {}
    assert bounded.read(few | {"outcomes": [5.0, 5.0, 5.0, 5.0]}, 10.0).metrics == {}


def test_an_objective_without_bounds_is_refused():
    with pytest.raises(FedproofError, match="Regression has none: choose privacy.evaluation=none"):
        bounded_of(Regression())


def network(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, width))


@pytest.mark.parametrize("rows", [1, 5, 63, 64, 65, 200])
def test_one_row_more_moves_the_sums_by_its_own_part(rows):
    """Also where kernels would round other rows' outputs otherwise, right at the edge of a bin."""
    module, objective = network(1), Binary()
    bounded = bounded_of(objective)
    with torch.no_grad():
        # Every logit is where rounding decides on which side of 0 it lies.
        module[2].bias.zero_()
        x = torch.randn(1, 13) + 1e-7 * torch.randn(rows + 1, 13)
        module[2].bias.copy_(-module.eval()(x[:1])[0])
    y = torch.arange(rows + 1) % 2
    whole = bounded_sums(module, Examples(x, y), objective, per_client=False)
    for left in {0, rows // 2, rows}:
        kept = [i for i in range(rows + 1) if i != left]
        less = bounded_sums(module, Examples(x[kept], y[kept]), objective, per_client=False)
        moved = weighted(whole, bounded) - weighted(less, bounded)
        assert np.linalg.norm(moved) <= bounded.sensitivity + 1e-9
    empty = bounded_sums(module, Examples(x[:0], y[:0]), objective, per_client=False)
    assert not weighted(empty, bounded).any()


def test_a_clients_mean_is_as_long_as_one_row_at_most():
    module, objective = network(5), MultiClass(5)
    x, y = torch.randn(300, 13), torch.zeros(300, dtype=torch.long)
    bounded = bounded_of(objective)
    mean = bounded_sums(module, Examples(x, y), objective, per_client=True)
    assert np.linalg.norm(weighted(mean, bounded)) <= bounded.sensitivity
    whole = bounded_sums(module, Examples(x, y), objective, per_client=False)
    assert weighted(mean, bounded) * 300 == pytest.approx(weighted(whole, bounded), abs=1e-3)


class Mixing(nn.Module):
    """Tells in each row's output what the others are."""

    def forward(self, x):
        return x.mean(1, keepdim=True) + x.mean()


def test_a_model_in_which_rows_mix_is_refused_whatever_the_rows():
    for rows in (0, 1, 70):
        held_out = Examples(torch.ones(rows, 13), torch.zeros(rows))
        with pytest.raises(FedproofError, match="rows of a batch mix"):
            bounded_sums(Mixing(), held_out, Binary(), per_client=False)
    tokens = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(15, 1), nn.BatchNorm1d(1))
    held_out = Examples(torch.zeros(3, 5, dtype=torch.long), torch.zeros(3))
    # Statistics that training kept are the same for all rows.
    assert sum(bounded_sums(tokens, held_out, Binary(), per_client=False)["outcomes"]) == 3
