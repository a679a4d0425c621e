"""``privacy=client_dp`` with noise correlated over rounds, and clients that rest between."""

import pytest

from conf.errors import FedproofError
from server_app import checkpoint
from server_app.privacy import curator
from task.privacy.accounting import Spend, epsilon
from tests.task.privacy.test_client_dp import DP


@pytest.mark.parametrize("noise", ["tree", "banded"])
def test_correlated_noise_keeps_clients_apart(noise, federate):
    told = ("privacy.noise=" + noise, "privacy.separation=4", "federation.fraction=0.2")
    ran = federate(*DP, *told, "rounds=9")
    seen = {}
    for line in ran.rounds:
        assert len(line["answered"]) == 4
        for client in line["answered"]:
            assert line["round"] - seen.get(client, -9) >= 4
            seen[client] = line["round"]
    taken = {c: sum(c in line["answered"] for line in ran.rounds) for c in seen}
    for client, cost in ran.summary["privacy"]["epsilon"].items():
        assert cost == pytest.approx(epsilon([Spend(1.0, 1.0, taken[client])], 0.01), abs=1e-3)


def test_correlated_noise_starts_anew_after_a_restart_and_clients_rest_on(federate):
    told = (*DP, "privacy.noise=banded", "privacy.separation=3")
    parted = federate(*told, "rounds=3")
    tensors, facts = checkpoint.load(parted.directory / checkpoint.CHECKPOINT)
    assert not checkpoint.under("noise", tensors) and len(facts["privacy"]["recent"]) == 2
    again = federate(*told, "rounds=6", f"resume={parted.directory}", directory=parted.directory)
    for before, after in zip(again.rounds, again.rounds[1:], strict=False):
        assert not set(before["answered"]) & set(after["answered"])


def test_a_client_asked_too_soon_refuses(federate, monkeypatch):
    monkeypatch.setattr(curator.Curator, "cohort", lambda self, clients, draw: sorted(clients)[:4])
    told = ("privacy.noise=banded", "privacy.separation=3", "rounds=2", "federation.retries=0")
    with pytest.raises(FedproofError, match="less than privacy.separation=3 rounds from"):
        federate(*DP, *told)
