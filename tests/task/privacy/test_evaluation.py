"""The noise of evaluations, and what it takes from training's budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.compose import compose
from task.bounded import BoundedBinary, BoundedClasses, BoundedTokens
from task.privacy.accounting import Spend, epsilon, gaussian_sigma
from task.privacy.evaluation import EvaluationNoise, Evaluations
from task.privacy.noise import SecureNoise
from task.privacy.policy import mechanism_of

RECORD = ("privacy=record_dp", "task.scaling=local", "rounds=5", "train.epochs=1")
CLIENT = ("privacy=client_dp", "task=synthetic", "rounds=5", "privacy.delta=1e-3")


@pytest.mark.parametrize("bounded", [BoundedBinary(), BoundedClasses(7), BoundedTokens(-100)])
def test_the_noise_of_each_block_is_that_of_the_weighted_vector(bounded):
    noise = EvaluationNoise(2.5, per_client=False)
    zeros = {name: [0.0] * block.length for name, block in bounded.blocks.items()}
    stream = SecureNoise(b"a" * 32)
    drawn = [noise.noised(zeros, bounded, stream) for _ in range(1500)]
    for name, block in bounded.blocks.items():
        values = np.array([each[name] for each in drawn])
        spread = np.std(values) * block.weight
        assert spread == pytest.approx(2.5 * bounded.sensitivity, rel=0.06)
    # Nobody's noise is another's: blocks do not share it.
    flat = np.array([np.concatenate(list(each.values())) for each in drawn])
    together = np.corrcoef(flat.T) - np.eye(flat.shape[1])
    assert np.abs(together).max() < 0.15


@pytest.mark.parametrize("every", [1, 2, 5, 7])
@pytest.mark.parametrize("target", [1.0, 8.0])
def test_training_and_evaluations_cost_what_was_asked_for(target, every):
    told = (f"privacy.epsilon={target}", "privacy.evaluation=noised", f"evaluate_every={every}")
    privacy = mechanism_of(compose((*RECORD, *told)))
    whole, *evaluations = privacy.planned("ward", 160)
    assert len(evaluations) == {1: 5, 2: 3, 5: 1, 7: 1}[every]
    assert 0.98 * target < epsilon([whole, *evaluations], 1e-5) <= target
    assert epsilon(evaluations, 1e-5) == pytest.approx(0.25 * target, rel=1e-4)
    exact = mechanism_of(compose((*RECORD, told[0], told[2])))
    alone = exact.planned("ward", 160)
    assert len(alone) == 1 and alone[0].sigma < whole.sigma < 1.1 * alone[0].sigma


@pytest.mark.parametrize("run", [RECORD, CLIENT, (*CLIENT, "privacy.placement=local")])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_with_a_given_noise_the_share_is_of_what_training_costs(run, share):
    told = (*run, "privacy.sigma=2.0", "privacy.evaluation=noised")
    privacy = mechanism_of(compose((*told, f"privacy.evaluation_share={share}")))
    whole, *evaluations = privacy.planned("ward", 160)
    assert whole.sigma == 2.0
    trained = epsilon([whole], privacy.delta)
    assert epsilon(evaluations, privacy.delta) == pytest.approx(share * trained, rel=1e-4)
    noise = privacy.evaluation_noise("ward", 160)
    assert noise is not None and noise.per_client == (privacy.unit == "client")


@given(st.floats(0.01, 20.0), st.integers(1, 1000), st.floats(1e-9, 1e-2))
def test_the_closed_form_costs_no_more_than_the_accountant_says(target, count, delta):
    sigma = gaussian_sigma(target, delta, count)
    cost = epsilon([Spend(sigma, 1.0, count)], delta)
    assert cost <= target * (1 + 1e-6) and cost == pytest.approx(target, rel=1e-3)


def test_distributed_noise_pays_for_evaluations_too():
    run = ("privacy=distributed_dp", "aggregation=secagg", "task=synthetic", "rounds=5")
    told = ("privacy.epsilon=4.0", "privacy.delta=1e-3", "privacy.evaluation=noised")
    privacy = mechanism_of(compose((*run, *told)))
    assert 3.9 < epsilon(privacy.planned("a", 10), 1e-3) <= 4.0


def test_without_noise_nothing_is_planned():
    for kind in (Evaluations.exact, Evaluations.none):
        told = (*RECORD, "privacy.sigma=2.0", f"privacy.evaluation={kind}")
        privacy = mechanism_of(compose(told))
        assert privacy.evaluation_noise("ward", 160) is None
        assert len(privacy.planned("ward", 160)) == 1
