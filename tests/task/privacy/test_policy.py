"""What a silo demands of any run, and models that cannot be protected."""

import pytest
import torch

from client_app import leaving
from conf.compose import compose
from conf.errors import FedproofError
from task.privacy.accounting import Spend, epsilon
from task.privacy.client_dp import require_protectable
from task.privacy.ledger import Entry
from task.privacy.policy import Policy, mechanism_of
from task.rules import DELTA
from tests.task.privacy.test_client_dp import DP, FEDERATION

SILO = {"partition-id": 0, "num-partitions": 1}


@pytest.mark.parametrize(
    ("config", "overrides", "reason"),
    [
        ({"placement": "local"}, DP, "demands privacy.placement=local, the run has central"),
        ({"placement": "local"}, FEDERATION, "the run has no client-level privacy"),
        ({"privacy": "record_dp"}, DP, "demands privacy=record_dp, the run has privacy=client_dp"),
        ({"max-epsilon": 0.1}, DP, "has reached its budget"),
    ],
)
def test_a_silos_policy_goes_before_the_run(config, overrides, reason, federate):
    everyone = ("rounds=1", "federation.fraction=1.0")
    with pytest.raises(FedproofError, match=reason):
        federate(*overrides, *everyone, nodes=[SILO | config])


def test_a_bound_on_epsilon_is_kept_to_at_no_delta_of_the_runs():
    """A run that sets δ near 1 / rows would buy rounds beyond the operator's bound."""
    spends = [Entry("record", Spend(2.0, 0.1, 40), {}) for _ in range(20)]
    cost = epsilon([entry.spend for entry in spends], DELTA)
    runs = [
        mechanism_of(compose(("privacy=record_dp", "privacy.sigma=2", f"privacy.delta={delta}",
                              "task.scaling=local")))
        for delta in ("1e-5", "5e-3")
    ]  # fmt: skip
    for bound in (Policy(max_epsilon=cost + 1e-9), Policy.of({"max-epsilon": cost + 1e-9})):
        assert [bound.check(spends, run, "a") for run in runs] == [cost, cost]
        assert [bound.measured_at(run) for run in runs] == [DELTA, DELTA]
    for run in runs:
        with pytest.raises(FedproofError, match="has reached its budget.*δ = 1e-05"):
            Policy(max_epsilon=cost * 0.999).check(spends, run, "a")
    assert [Policy().measured_at(run) for run in runs] == [1e-5, 5e-3]


def test_what_a_run_asks_of_itself_is_at_its_own_delta():
    told = ("privacy=record_dp", "privacy.sigma=2", "task.scaling=local", "privacy.delta=1e-7")
    spends = [Entry("record", Spend(2.0, 0.1, 40), {}) for _ in range(20)]
    cheap, dear = (epsilon([e.spend for e in spends], delta) for delta in (1e-5, 1e-7))
    run = mechanism_of(compose((*told, f"privacy.max_epsilon={(cheap + dear) / 2}")))
    for policy in (Policy(), Policy(max_epsilon=dear * 2)):
        with pytest.raises(FedproofError, match="has reached its budget.*δ = 1e-07"):
            policy.check(spends, run, "a")


def test_batch_norm_is_refused():
    with pytest.raises(FedproofError, match="BatchNorm's running statistics"):
        require_protectable(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)))


def test_a_model_with_batch_norm_sends_nothing(federate, monkeypatch):
    def refuse(module):
        require_protectable(torch.nn.BatchNorm1d(2))

    monkeypatch.setattr(leaving, "require_protectable", refuse)
    with pytest.raises(FedproofError, match="BatchNorm's running statistics"):
        federate(*DP, "rounds=1", "federation.fraction=1.0")
