"""Objectives against scikit-learn, and their sums against their own metrics."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from task.evaluation import add
from task.objectives import SCORE_BINS, SCORE_RANGE, Binary, MultiClass, NextToken, Regression

SEEDS = st.integers(0, 2**32 - 1)


def split_sums(objective, outputs, targets, pieces=3):
    sums = {}
    for out, target in zip(outputs.chunk(pieces), targets.chunk(pieces), strict=True):
        sums = add(sums, objective.statistics(out, target))
    return sums


def binary_case(seed, n=200):
    rng = torch.Generator().manual_seed(seed)
    targets = (torch.rand(n, generator=rng) < 0.3).float()
    # Rounded, so that there are ties.
    logits = (torch.randn(n, 1, generator=rng) + targets[:, None]).mul(4).round().div(4)
    targets[:2] = torch.tensor([0.0, 1.0])
    return logits, targets


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_binary_metrics_are_scikit_learns(seed):
    logits, targets = binary_case(seed)
    found = Binary().metrics(logits, targets)
    scores, y = logits[:, 0].numpy(), targets.numpy()
    decided = scores >= 0
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(y, decided))
    assert found["f1"] == pytest.approx(oracle.f1_score(y, decided, zero_division=0.0))
    assert found["auroc"] == pytest.approx(oracle.roc_auc_score(y, scores))
    assert found["average_precision"] == pytest.approx(oracle.average_precision_score(y, scores))
    probabilities = torch.sigmoid(logits[:, 0].double()).numpy()
    assert found["loss"] == pytest.approx(oracle.log_loss(y, probabilities), rel=1e-5)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_pooled_binary_metrics_are_those_of_the_union(seed):
    # Distinct scores lie in distinct bins here, so the histograms lose nothing.
    logits, targets = binary_case(seed)
    objective = Binary()
    pooled = objective.pooled(split_sums(objective, logits, targets))
    assert pooled == pytest.approx(objective.metrics(logits, targets), rel=1e-6)


def test_histogram_error_is_a_bins_width_at_most():
    rng = np.random.default_rng(0)
    y = rng.random(20_000) < 0.2
    scores = rng.normal(size=20_000) + y
    objective = Binary()
    sums = objective.statistics(torch.tensor(scores)[:, None], torch.tensor(y).float())
    pooled = objective.pooled(sums)
    assert pooled["auroc"] == pytest.approx(oracle.roc_auc_score(y, scores), abs=1e-4)
    assert pooled["accuracy"] == oracle.accuracy_score(y, scores >= 0)
    assert 2 * SCORE_RANGE / SCORE_BINS < 0.024


def test_scores_out_of_range_keep_their_side():
    objective = Binary()
    logits = torch.tensor([[-1e6], [1e6], [-50.0], [50.0]])
    pooled = objective.pooled(objective.statistics(logits, torch.tensor([0.0, 1.0, 0.0, 1.0])))
    assert pooled["accuracy"] == pooled["auroc"] == pooled["f1"] == 1.0


def test_one_class_has_no_auroc():
    found = Binary().metrics(torch.tensor([[1.0], [-1.0]]), torch.zeros(2))
    assert set(found) == {"loss", "accuracy"}
    found = Binary().metrics(torch.tensor([[1.0], [-1.0]]), torch.ones(2))
    assert "auroc" not in found and found["f1"] == pytest.approx(2 / 3)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_multiclass_metrics_are_scikit_learns(seed):
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(90, 5, generator=rng)
    targets = torch.randint(0, 4, (90,), generator=rng)
    objective = MultiClass(5)
    y, predicted = targets.numpy(), logits.argmax(1).numpy()
    for found in (
        objective.metrics(logits, targets),
        objective.pooled(split_sums(objective, logits, targets)),
    ):
        assert found["accuracy"] == pytest.approx(oracle.accuracy_score(y, predicted))
        assert found["f1_macro"] == pytest.approx(oracle.f1_score(y, predicted, average="macro"))
        chances = logits.softmax(1).double().numpy()
        chances /= chances.sum(1, keepdims=True)
        assert found["loss"] == pytest.approx(
            oracle.log_loss(y, chances, labels=range(5)), rel=1e-4
        )


def test_next_token_ignores_padding():
    objective = NextToken()
    outputs = torch.zeros(2, 3, 4)
    outputs[0, 0, 1] = outputs[0, 1, 2] = outputs[1, 0, 3] = 9.0
    padding = NextToken.IGNORED
    targets = torch.tensor([[1, 2, padding], [0, padding, padding]])
    found = objective.metrics(outputs, targets)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    garbled = outputs.clone()
    garbled[targets == padding] = 100.0
    assert objective.metrics(garbled, targets) == pytest.approx(found)
    losses = objective.loss(outputs, targets)
    assert losses.shape == (2,)
    assert float(losses @ torch.tensor([2.0, 1.0]) / 3) == pytest.approx(found["loss"], rel=1e-5)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_regression_metrics_are_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    y = rng.normal(3, 2, 60)
    guess = y + rng.normal(0, 1, 60)
    objective = Regression()
    outputs, targets = torch.tensor(guess)[:, None], torch.tensor(y)
    found = objective.pooled(split_sums(objective, outputs, targets))
    assert found["r2"] == pytest.approx(oracle.r2_score(y, guess))
    assert found["mean_absolute_error"] == pytest.approx(oracle.mean_absolute_error(y, guess))
    assert found["loss"] == pytest.approx(oracle.mean_squared_error(y, guess))
    assert found["root_mean_squared_error"] == pytest.approx(math.sqrt(found["loss"]))


def test_a_constant_target_has_no_r2():
    assert "r2" not in Regression().metrics(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]))
