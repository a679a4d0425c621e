"""What a silo demands of any run, and models that cannot be protected."""

import pytest
import torch

from client_app import leaving
from conf.errors import FedproofError
from task.privacy.client_dp import require_protectable
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


def test_batch_norm_is_refused():
    with pytest.raises(FedproofError, match="BatchNorm's running statistics"):
        require_protectable(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)))


def test_a_model_with_batch_norm_sends_nothing(federate, monkeypatch):
    def refuse(module):
        require_protectable(torch.nn.BatchNorm1d(2))

    monkeypatch.setattr(leaving, "require_protectable", refuse)
    with pytest.raises(FedproofError, match="BatchNorm's running statistics"):
        federate(*DP, "rounds=1", "federation.fraction=1.0")
