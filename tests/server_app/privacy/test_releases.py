"""Attack on correlated noise: what a client's rounds really cost, however rounds were lost.

Noise is made of unit vectors, so that the matrix from fresh noise to what was released is known.
The adversary sees all releases, those of rounds that a crash undid among them.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.compose import compose
from conf.errors import FedproofError
from server_app.privacy.curator import Curator
from task.privacy import correlated
from task.privacy.policy import mechanism_of

CLIENTS = [f"client-{number}" for number in range(9)]
MOST = 400


class Units:
    """In place of noise: every fresh vector is a direction of its own."""

    made = 0

    def gaussian(self, size, deviation):
        fresh = np.zeros(size)
        fresh[Units.made] = deviation
        Units.made += 1
        return fresh


class Server:
    """A run's server over rounds, crashes and all; what it released, and of whom."""

    def __init__(self, noise, separation, fraction, directory):
        told = (
            "task=synthetic", "model=logistic", f"task.clients={len(CLIENTS)}", "privacy.clip=1",
            f"federation.fraction={fraction}", "privacy=client_dp", "privacy.sigma=1",
            "privacy.delta=0.01", f"privacy.noise={noise}", f"privacy.separation={separation}",
        )  # fmt: skip
        self.settings, self.directory = compose(told), directory
        self.number, self.releases, self.last = 0, [], {}
        self.separation = separation
        self.curator = self._started()
        self.checkpoint = (0, self.curator.state())

    def _started(self):
        curator = Curator(self.settings, mechanism_of(self.settings), self.directory)
        curator._run, curator._whole, curator._expected = "run", 1.0, 1.0
        return curator

    def round(self, chance, *, abandoned):
        """Run a round; whose ledger says that it took part not long ago refuses."""
        self.number += 1

        def draw(clients, fraction):
            count = max(1, round(fraction * len(clients)))
            return sorted(clients)[:count] if chance is None else chance(sorted(clients), count)

        cohort = self.curator.cohort(CLIENTS, draw)
        able = [c for c in cohort if self.number - self.last.get(c, -99) >= self.separation]
        self.last |= dict.fromkeys(able, self.number)
        if not abandoned and able:
            noise = self.curator._release(torch.zeros(MOST, dtype=torch.float64), 0, len(able))
            self.releases.append((set(able), noise.numpy()))
        done = able if not abandoned else []
        self.curator.add((client, _spent()) for client in done)

    def keep(self):
        self.checkpoint = (self.number, self.curator.state())

    def crash(self):
        self.number, state = self.checkpoint
        self.curator = self._started()
        self.curator.restore(state)


def _spent():
    from flwr.app import ConfigRecord, RecordDict

    return RecordDict({"privacy": ConfigRecord({"sigma": 1.0, "rate": 1.0, "steps": 1})})


def squared_sensitivity(releases, client):
    """Return what all releases tell of a client, in the worst case, and how often it took part."""
    matrix = np.stack([row for _, row in releases])
    seen = np.linalg.inv(matrix @ matrix.T)
    taken = [i for i, (cohort, _) in enumerate(releases) if client in cohort]
    # Its updates may point wherever they hurt: every inner product counts in full.
    return np.abs(seen[np.ix_(taken, taken)]).sum(), len(taken)


@pytest.mark.parametrize("noise", ["banded", "tree"])
@settings(max_examples=60, deadline=None)
@given(
    separation=st.integers(1, 5),
    events=st.lists(st.sampled_from("rrrrakc"), min_size=1, max_size=40),
    random=st.randoms(use_true_random=False),
)
def test_no_history_of_rounds_costs_more_than_is_accounted(
    noise, tmp_path_factory, separation, events, random, monkeypatch_module
):
    Units.made = 0
    server = Server(noise, separation, round(1 / separation, 3), tmp_path_factory.mktemp("run"))
    for event in events:
        try:
            if event in "ra":
                server.round(random.sample, abandoned=event == "a")
            elif event == "k":
                server.keep()
            else:
                server.crash()
        except FedproofError as error:
            assert "took part in the last rounds" in str(error)
            server.number += 1
    for client in CLIENTS if server.releases else ():
        cost, taken = squared_sensitivity(server.releases, client)
        # The noise is for updates that are a little longer than the clip.
        assert cost <= taken + 1e-9


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(correlated, "SecureNoise", Units)
        yield


@pytest.mark.parametrize("noise", ["banded", "tree"])
@pytest.mark.parametrize(
    "events", ["rarararrarar", "rrkrrcrrkrcrr", "aaarrrrr", "rrrraaarrr", "rkrrrcrrrcrrr"]
)
def test_histories_that_were_found(noise, events, tmp_path, monkeypatch_module):
    Units.made = 0
    server = Server(noise, 3, 0.3, tmp_path)
    for event in events:
        actions = {"k": server.keep, "c": server.crash}
        actions.get(event, lambda e=event: server.round(None, abandoned=e == "a"))()
    costs = [squared_sensitivity(server.releases, client) for client in CLIENTS]
    assert max(taken for _, taken in costs) > 1
    assert all(cost <= taken + 1e-9 for cost, taken in costs)


@pytest.mark.parametrize("noise", ["banded", "tree"])
def test_what_the_attack_measures_is_what_is_accounted_where_no_round_is_lost(
    noise, tmp_path, monkeypatch_module
):
    Units.made = 0
    server = Server(noise, 3, 0.3, tmp_path)
    for _ in range(12):
        server.round(None, abandoned=False)
    for client in CLIENTS:
        cost, taken = squared_sensitivity(server.releases, client)
        assert 0.45 * taken < cost <= taken + 1e-9
