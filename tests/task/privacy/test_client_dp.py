"""``privacy=client_dp`` from its settings to the model and what is said of it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conf.compose import compose
from conf.errors import FedproofError
from server_app import checkpoint
from server_app.evidence import files
from server_app.privacy import curator
from task.arrays import array_of, record_of, values_of
from task.privacy.accounting import Spend, epsilon
from task.privacy.client_dp import ClippedUpdate, require_protectable
from task.privacy.ledger import Ledger
from task.privacy.policy import mechanism_of
from task.wire import Cohort

FEDERATION = (
    "task=synthetic", "model=logistic", "task.shape=[6]", "task.classes=3", "task.clients=20",
    "task.rows=12", "train.lr=0.5", "federation.fraction=0.3", "federation.vectorize=off",
)  # fmt: skip
DP = (*FEDERATION, "privacy=client_dp", "privacy.sigma=1.0", "privacy.delta=0.01")
NOISELESS = (*FEDERATION, "privacy=client_dp", "privacy.sigma=1e-9", "privacy.delta=0.01")


def model_of(ran):
    tensors, _ = checkpoint.load(ran.directory / files.MODEL)
    return np.concatenate([tensors[key].ravel() for key in sorted(tensors)])


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20), st.floats(0.01, 10))
def test_no_update_is_longer_than_the_clip(values, clip):
    update = torch.tensor(values)
    clipped, unclipped = ClippedUpdate(1.0, clip, 1.0, False, 1).clipped(update)
    assert clipped.double().norm() <= clip
    assert unclipped == bool(update.double().norm() <= clip)
    if unclipped:
        assert torch.equal(clipped, update)


def test_a_zero_update_stays_zero():
    clipped, unclipped = ClippedUpdate(1.0, 1.0, 1.0, False, 1).clipped(torch.zeros(4))
    assert unclipped and not clipped.any()


def test_an_update_that_is_not_finite_does_not_leave():
    with pytest.raises(FedproofError, match="holds NaN or infinity"):
        ClippedUpdate(1.0, 1.0, 1.0, False, 1).clipped(torch.tensor([float("nan")]))


def test_what_was_spent_composes_and_names_nobody(federate):
    ran = federate("rounds=3", *DP)
    for number, line in enumerate(ran.rounds, 1):
        told = line["privacy"]
        assert told["unit"] == "client" and told["relation"] == "add-or-remove-one"
        cost = epsilon([Spend(1.0, 0.3, number)], 0.01)
        assert told["epsilon"] == {"every client": pytest.approx(cost, abs=1e-3)}
        assert line["sampled"] == line["answered"] == [] and line["secret"]
        assert "loss" not in line["train"]
    assert (
        "who was drawn is not recorded, nor the bytes of training"
        in ran.summary["privacy"]["assumptions"]
    )
    text = (ran.directory / files.METRICS).read_text() + (ran.directory / files.RUN).read_text()
    assert "client-0" not in text


def test_cohorts_are_poisson_samples_of_the_systems_randomness(federate, monkeypatch):
    drawn = []
    original = curator.Curator.cohort

    def noted(self, clients, draw):
        drawn.append(original(self, clients, draw))
        return drawn[-1]

    monkeypatch.setattr(curator.Curator, "cohort", noted)
    federate("rounds=40", *DP, "evaluate_every=40", "checkpoint_every=40")
    sizes = [len(cohort) for cohort in drawn]
    # 20 clients at 0.3: mean 6, variance 4.2; a fixed size would not vary.
    assert 4.5 < np.mean(sizes) < 7.5 and 0.8 < np.var(sizes) < 12
    first, federate_again = list(drawn), federate("rounds=5", *DP)
    assert federate_again.rounds and drawn[len(first) : len(first) + 5] != first[:5]


def test_the_sum_is_divided_by_the_expected_weight(federate, monkeypatch):
    everyone = ("federation.fraction=1.0", "rounds=1", "privacy.clip=1000")
    monkeypatch.setattr(curator.Curator, "cohort", lambda self, clients, draw: sorted(clients)[:4])
    base = federate(*NOISELESS, *everyone)
    plain = federate(*FEDERATION, "federation.fraction=1.0", "rounds=1", "federation.clients=4")
    start = federate(*FEDERATION, "rounds=1", "train.lr=1e-30")
    # Four of twenty answered: a fifth of their mean update.
    update = (model_of(plain) - model_of(start)) * 4 / 20
    assert np.allclose(model_of(base) - model_of(start), update, atol=1e-6)


def test_the_noise_is_there(federate, monkeypatch):
    monkeypatch.setattr(curator.Curator, "cohort", lambda self, clients, draw: [])
    still = ("rounds=1", "task.shape=[400]", "task.classes=5")
    start = model_of(federate(*FEDERATION, *still, "train.lr=1e-30"))
    first, second = (
        model_of(federate(*DP, *still, "privacy.sigma=3.0", "privacy.clip=0.5")) - start
        for _ in range(2)
    )
    for noise in (first, second):
        # Noise multiplier times clip, over the expected number of clients.
        assert noise.std() == pytest.approx(3.0 * 0.5 / (0.3 * 20), rel=0.1)
        assert abs(noise.mean()) < 0.03
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


def test_rounds_have_noise_of_their_own(federate, monkeypatch):
    monkeypatch.setattr(curator.Curator, "cohort", lambda self, clients, draw: [])
    models = []
    original = curator.NoisedMean.arrays_of
    monkeypatch.setattr(
        curator.NoisedMean, "arrays_of",
        lambda self, model: models.append(model.numpy().copy()) or original(self, model),
    )  # fmt: skip
    federate(*DP, "rounds=3", "task.shape=[400]")
    steps = np.diff(np.stack(models), axis=0)
    assert abs(np.corrcoef(steps)[0, 1]) < 0.1


def test_clients_that_noise_their_own_update(federate):
    local = ("privacy.placement=local", "rounds=1", "task.shape=[400]", "privacy.clip=0.5")
    updates = []

    def look(reply):
        if reply.metadata.message_type == "train":
            for part in Cohort.unpack(reply.content).parts.values():
                updates.append(
                    np.concatenate([values_of(a).ravel() for a in part["arrays"].values()])
                )
        return reply

    ran = federate(*DP, *local, "strategy=fedmedian", "train.lr=1e-30", tamper=look)
    start = model_of(federate(*FEDERATION, "rounds=1", "task.shape=[400]", "train.lr=1e-30"))
    noise = np.stack(updates) - start[: updates[0].size]
    assert len(updates) == 6
    deviations = (np.stack(updates) - np.stack(updates).mean(0)).std(1) * np.sqrt(6 / 5)
    assert deviations == pytest.approx(np.full(6, 0.5), rel=0.1)
    correlations = np.corrcoef(np.stack(updates) - np.stack(updates).mean(0))
    assert np.abs(correlations + np.full((6, 6), 1 / 5) - np.eye(6) * 1.2).max() < 0.15
    told = ran.summary["privacy"]
    assert len(told["epsilon"]) == 6 and noise.shape[0] == 6
    assert told["epsilon_most"] == pytest.approx(epsilon([Spend(1.0, 1.0, 1)], 0.01), abs=1e-3)
    assert "every client adds its own noise" in told["assumptions"]


def test_a_restart_that_lost_rounds_counts_them(federate):
    parted = federate("rounds=3", *DP)
    kept = (parted.directory / checkpoint.CHECKPOINT).read_bytes()
    told = ("rounds=5", f"resume={parted.directory}")
    federate(*DP, *told, directory=parted.directory)
    # As if the checkpoint of round 3 were the last that was written before a crash.
    (parted.directory / checkpoint.CHECKPOINT).write_bytes(kept)
    again = federate(*DP, *told, directory=parted.directory)
    cost = epsilon([Spend(1.0, 0.3, 7)], 0.01)
    assert again.summary["privacy"]["epsilon_most"] == pytest.approx(cost, abs=1e-3)


def test_clients_write_down_rounds_in_which_they_were_not_drawn(federate, monkeypatch, tmp_path):
    drawn = iter([[3], [7], [], [3]])

    def fixed(self, clients, draw):
        return [clients[index] for index in next(drawn)]

    monkeypatch.setattr(curator.Curator, "cohort", fixed)
    node = {"partition-id": 0, "num-partitions": 1, "ledger": str(tmp_path / "ledgers")}
    ran = federate("rounds=4", *DP, nodes=[node])
    steps = {
        path.name: [entry.spend.steps for entry in Ledger(path).entries()]
        for path in (tmp_path / "ledgers").glob("*.jsonl")
    }
    assert not any(ran.directory.rglob("*client-*"))
    assert sorted(steps.values()) == [[1, 3], [2]]


def test_the_run_ends_in_good_order_before_the_budget_is_passed(federate):
    budget = epsilon([Spend(1.0, 0.3, 3)], 0.01) + 0.01
    ran = federate(*DP, "rounds=8", f"privacy.max_epsilon={budget}", "evaluate_every=8")
    assert ran.summary["rounds"] == 3 and ran.summary["evaluated_round"] == 3
    assert ran.summary["privacy"]["epsilon_most"] <= budget
    with pytest.raises(FedproofError, match="allows no round"):
        federate(*DP, "privacy.max_epsilon=0.1")


def test_weights_are_rows_up_to_the_most(federate, monkeypatch):
    monkeypatch.setattr(curator.Curator, "cohort", lambda self, clients, draw: sorted(clients))
    told = ("federation.fraction=1.0", "privacy.max_rows=5", "rounds=1", "privacy.clip=1000")
    weights = []

    def look(reply):
        if reply.metadata.message_type == "train":
            parts = Cohort.unpack(reply.content).parts.values()
            weights.extend(part["metrics"]["num-examples"] for part in parts)
        return reply

    ran = federate(*NOISELESS, *told, tamper=look)
    assert weights == [5] * 20
    same = federate(*NOISELESS, "federation.fraction=1.0", "rounds=1", "privacy.clip=1000")
    assert np.allclose(model_of(ran), model_of(same), atol=1e-6)


def test_the_clip_adapts_and_clients_follow(federate):
    told = ("privacy.quantile=0.5", "privacy.clip=0.001", "privacy.clip_lr=2.0", "rounds=12")
    ran = federate(*DP, *told, "federation.fraction=1.0")
    clips = [line["privacy"]["clip"] for line in ran.rounds]
    assert clips[0] > 0.001 and clips[-1] > 0.02
    costs = ran.summary["privacy"]["epsilon"]["every client"]
    assert costs == pytest.approx(epsilon([Spend(1.0, 1.0, 12)], 0.01), abs=1e-3)


@pytest.mark.parametrize(
    ("values", "metrics", "reason"),
    [
        (9.0, {}, "its update is longer than the clip"),
        (0.0, {"num-examples": 7}, "it weighs 7, more than privacy.max_rows"),
        (0.0, {"unclipped": 2}, "does not say whether it was clipped"),
    ],
)
def test_the_server_refuses_what_is_not_clipped(values, metrics, reason, federate):
    def tamper(reply):
        if reply.metadata.message_type == "train":
            cohort = Cohort.unpack(reply.content)
            for part in cohort.parts.values():
                told = {k: values_of(a) * 0 + np.float32(values) for k, a in part["arrays"].items()}
                part["arrays"] = record_of({key: array_of(value) for key, value in told.items()})
                part["metrics"].update(metrics)
            reply.content = cohort.pack()
        return reply

    alone = [{"partition-id": i, "num-partitions": 20} for i in range(20)]
    with pytest.raises(FedproofError, match=reason):
        federate(*DP, "rounds=1", "federation.fraction=1.0", nodes=alone, tamper=tamper)


def test_a_client_does_not_follow_another_clip(federate, monkeypatch):
    monkeypatch.setattr(curator.Curator, "told", lambda self: {"clip": 1e6})
    with pytest.raises(FedproofError, match=r"the server asks for clip=1e\+06"):
        federate(*DP, "rounds=1", "federation.fraction=1.0")


def test_stacked_clients_are_clipped_alike(federate, monkeypatch):
    monkeypatch.setattr(curator.Curator, "cohort", lambda self, clients, draw: sorted(clients))
    told = (*NOISELESS, "privacy.clip=0.05", "rounds=2")
    alone = federate(*told)
    together = federate(*told, "federation.vectorize=on")
    assert np.allclose(model_of(alone), model_of(together), atol=1e-6)


def test_strategies_that_look_at_single_updates_need_local_noise(federate):
    with pytest.raises(FedproofError, match="strategy=krum looks at each.*placement=local"):
        federate(*DP, "strategy=krum", "rounds=1")


@pytest.mark.parametrize("strategy", ["fedadam", "fedprox", "fedavgm"])
def test_strategies_of_means_go_on(strategy, federate):
    assert federate(*DP, f"strategy={strategy}", "rounds=2").summary["rounds"] == 2


def test_a_target_is_what_all_rounds_cost(federate):
    told = ("privacy.sigma=null", "privacy.epsilon=2.0", "rounds=4")
    ran = federate(*DP, *told)
    assert 1.9 < ran.summary["privacy"]["epsilon_most"] <= 2.0
    more = (*DP, *told[:2], "rounds=9", f"resume={ran.directory}")
    with pytest.raises(FedproofError, match="was solved for 4 rounds"):
        federate(*more, directory=ran.directory)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("privacy.sigma=null",), "needs either privacy.sigma.*0 of them are given"),
        (("privacy.sigma=0.0",), "privacy.sigma must be positive"),
        (("privacy.sigma=null", "privacy.epsilon=0.0"), "privacy.epsilon must be positive"),
        (("privacy.delta=1.5",), r"privacy.delta must lie in \(0, 1\)"),
        (("privacy.placement=cloud",), "must be one of central, local"),
        (("privacy.noise=pink",), "must be one of independent, tree, banded"),
        (("privacy.noise=tree", "privacy.separation=0"), "separation must be at least 1"),
        (("privacy.noise=tree", "privacy.separation=9"), "fraction=0.3 must not exceed 0.111"),
        (("privacy.separation=2",), "is for privacy.noise=tree and banded"),
        (("privacy.placement=local", "privacy.noise=tree"), "noises every update by itself"),
        (("privacy.noise=tree", "privacy.quantile=0.5"), "made for one clip"),
        (("privacy.max_rows=0",), "privacy.max_rows must be at least 1"),
    ],
)
def test_settings_that_protect_nobody(overrides, sentence):
    with pytest.raises(FedproofError, match=sentence):
        mechanism_of(compose((*DP, *overrides)))


def test_a_delta_of_one_over_the_clients(federate):
    with pytest.raises(FedproofError, match="must be below 1 / clients = 0.05"):
        federate(*DP, "privacy.delta=0.05", "rounds=1")


def test_tied_weights_are_refused():
    """Two names of one weight: noised twice it would be two weights, noised once one is lost."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(), torch.nn.Linear(3, 3))
    require_protectable(model)
    model[2].weight = model[0].weight
    with pytest.raises(FedproofError, match=r"'2.weight' is another one's, too"):
        require_protectable(model)
