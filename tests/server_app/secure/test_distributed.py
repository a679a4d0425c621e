"""Distributed differential privacy in runs: what is told is true, whoever drops out."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load

from conf.compose import compose
from conf.errors import FedproofError
from task.privacy.accounting import Spend, epsilon
from task.privacy.distributed_dp import DistributedDP
from task.privacy.ledger import Ledger, standing
from tests.server_app.secure.runs import SHORT, without

SIGMA, DELTA = 2.0, 1e-3
DP = (
    *SHORT, "aggregation=secagg", "privacy=distributed_dp", f"privacy.sigma={SIGMA}",
    f"privacy.delta={DELTA}",
)  # fmt: skip


def ledgers(run):
    return {path.name.split("-")[0]: Ledger(path) for path in run.directory.glob("ledgers/*.jsonl")}


def expected(told, contributors):
    """Return the ε of rounds with so many contributors each."""
    privacy = DistributedDP(compose(told))
    dimension = 273
    spends = [privacy.spend(dimension, 4, count) for count in contributors]
    return epsilon(spends, DELTA)


@pytest.mark.parametrize("noise", ["discrete_gaussian", "skellam"])
@pytest.mark.parametrize("bits", [16, 32])
def test_the_cost_is_that_of_central_noise_within_a_few_percent(federate, noise, bits):
    told = (*DP, "rounds=2", f"privacy.noise={noise}", f"aggregation.bits={bits}")
    run = federate(*told)
    privacy = run.summary["privacy"]
    # One of four knows its own noise.
    central = epsilon([Spend(SIGMA * (3 / 4) ** 0.5, 1.0, 2)], DELTA)
    # Skellam's is accounted by Rényi DP, which is not tight for the Gaussian either.
    most = 1.03 if noise == "discrete_gaussian" else 1.25
    assert central * 0.999 <= privacy["epsilon_most"] <= most * central
    assert privacy["relation"] == "zero-out-one" and privacy["unit"] == "client"
    assert "no secret" in privacy["assumptions"]


def test_drop_outs_raise_what_is_told(federate):
    run = federate(*DP, "rounds=2", tamper=without("va", "train", (2,)))
    assert [line["secure"]["sums"] for line in run.rounds] == [[4], [3]]
    told = run.summary["privacy"]["epsilon"]
    assert told["cleveland"] == pytest.approx(expected(DP, (4, 3)), abs=1e-4)
    assert told["va"] == pytest.approx(expected(DP, (4,)), abs=1e-4)
    assert told["cleveland"] > expected(DP, (4, 4)) * 1.02


def test_ledgers_are_settled_by_who_contributed(federate):
    run = federate(*DP, "rounds=2", tamper=without("va", "train", (2,)))
    known = ledgers(run)
    for client in ("cleveland", "hungary", "switzerland"):
        entries = known[client].entries()
        assert [e.facts.get("contributors") for e in entries] == [None, 4, None, 3]
        spent = epsilon([e.spend for e in standing(entries)], DELTA)
        assert spent == pytest.approx(expected(DP, (4, 3)), abs=1e-4)
    # What it sent was lost, as far as the server says: it counts the least that a sum may hold.
    spent = epsilon([e.spend for e in standing(known["va"].entries())], DELTA)
    assert spent == pytest.approx(expected(DP, (4, 3)), abs=1e-4)


def test_a_client_that_leaves_before_signing_has_paid_for_the_worst(federate):
    run = federate(*DP, "rounds=1", tamper=without("va", "agree", (1,)))
    entries = ledgers(run)["va"].entries()
    # Its signature was lost on the way, after it was written down whose noise there is.
    assert [e.facts.get("contributors") for e in entries] == [None, 4]
    assert epsilon([entries[0].spend], DELTA) > epsilon([entries[1].spend], DELTA)


def test_one_participant_is_counted_as_a_colluder_unless_more_are(federate):
    run = federate(*DP, "rounds=1", "privacy.colluders=2", "aggregation.threshold=0.8")
    costs = {count: expected((*DP, f"privacy.colluders={count}"), (4,)) for count in range(3)}
    assert run.summary["privacy"]["epsilon_most"] == pytest.approx(costs[2], abs=1e-4)
    assert expected(DP, (4,)) == costs[1]
    assert costs[1] == pytest.approx(expected((*DP, "privacy.colluders=0"), (3,)), rel=1e-3)
    for count, cost in costs.items():
        central = epsilon([Spend(SIGMA * ((4 - count) / 4) ** 0.5, 1.0, 1)], DELTA)
        assert central <= cost <= 1.03 * central


def test_a_plan_counts_the_noise_of_those_who_do_not_collude(federate):
    settings = compose(DP)
    privacy = DistributedDP(settings)
    assert privacy.counted(4) == pytest.approx(SIGMA * (3 / 4) ** 0.5)


def test_a_budget_is_kept(federate):
    one = expected(DP, (3,))
    with pytest.raises(FedproofError, match="abandoned") as ended:
        federate(*DP, "rounds=9", f"privacy.max_epsilon={one * 1.01}")
    assert "reached its budget" in str(ended.value)


def test_the_noise_is_in_the_model(federate):
    """With a clip so small that training does not matter, a step is noise of the planned size."""
    told = (*DP, "rounds=1", "privacy.clip=0.001", "model.hidden=[128]", "privacy.sigma=50")
    one, two = (load(federate(*told).model) for _ in range(2))
    gaps = np.concatenate([(one[key] - two[key]).ravel() for key in one])
    assert float(gaps.std()) == pytest.approx(50 * 0.001 / 4 * 2**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("privacy=distributed_dp", "privacy.sigma=1"), "add aggregation=secagg"),
        ((*DP, "privacy.delta=0.3"), "below 1 / clients"),
        ((*DP, "aggregation.bits=16", "privacy.sigma=1e-5"), "raise privacy.bits|abandoned"),
        ((*DP, "strategy=fedmedian"), "looks at each update"),
    ],
)
def test_refusals(federate, overrides, sentence):
    with pytest.raises(FedproofError, match=sentence) as refused:
        federate(*SHORT, "rounds=1", *overrides)
    assert "\n" not in str(refused.value)


def test_noise_for_a_target(federate):
    told = [o for o in DP if not o.startswith("privacy.sigma")]
    run = federate(*told, "rounds=3", "privacy.epsilon=4")
    assert 3.9 <= run.summary["privacy"]["epsilon_most"] <= 4 * 1.03
