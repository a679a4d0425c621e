"""``privacy=record_dp`` from its settings to the model and what is said of it."""

import pytest
from safetensors.torch import load_file

from conf.compose import compose
from conf.errors import FedproofError
from task.privacy.accounting import Spend, epsilon
from task.privacy.ledger import Ledger
from task.privacy.policy import mechanism_of

DP = ("privacy=record_dp", "privacy.sigma=1.0", "task.scaling=local", "model.hidden=[8]")
SIZES = {"cleveland": 199, "hungary": 194, "switzerland": 81, "va": 132}


def spends(client, rounds, sigma=1.0):
    train = compose(DP).train
    steps = train.epochs * -(-SIZES[client] // train.batch_size)
    return [Spend(sigma, train.batch_size / SIZES[client], steps)] * rounds


def test_what_was_spent_composes_over_rounds(federate):
    ran = federate("rounds=3", *DP)
    for number, line in enumerate(ran.rounds, 1):
        told = line["privacy"]
        assert told["unit"] == "record" and told["relation"] == "add-or-remove-one"
        assert set(told["epsilon"]) == set(SIZES)
        for client, cost in told["epsilon"].items():
            assert cost == pytest.approx(epsilon(spends(client, number), 1e-5), abs=1e-3)
            assert told["ledger_epsilon"][client] == pytest.approx(cost, abs=1e-3)
        assert "loss" not in line["train"]
    assert ran.summary["privacy"]["epsilon"] == ran.rounds[-1]["privacy"]["epsilon"]
    for assumed in ("not protected", "standardises its own features"):
        assert assumed in ran.summary["privacy"]["assumptions"]


def test_a_restart_in_the_middle_forgets_nothing(federate):
    parted = federate("rounds=2", *DP)
    again = federate("rounds=4", *DP, f"resume={parted.directory}", directory=parted.directory)
    told = again.summary["privacy"]
    for client in SIZES:
        whole = epsilon(spends(client, 4), 1e-5)
        assert told["epsilon"][client] == pytest.approx(whole, abs=1e-3)
        assert told["ledger_epsilon"][client] == pytest.approx(whole, abs=1e-3)


def test_an_adapted_clip_and_the_optimiser_go_on_from_round_to_round(federate):
    adapts = ("privacy.quantile=0.5", "privacy.clip=0.01", "train.momentum=0.9")
    ran = federate("rounds=3", *DP, *adapts, "train.keep_optimizer=true")
    clips = {}
    for path in (ran.directory / "ledgers").glob("*.jsonl"):
        clips[path] = [entry.facts["clip"] for entry in Ledger(path).entries()]
    kept = sorted((ran.directory / "clients").rglob("*.safetensors"))
    assert len(kept) >= len(SIZES)
    memories = [load_file(path) for path in kept]
    assert all("velocity" in memory for memory in memories)
    # A clip far below the gradients' norms grows with every batch, also from round to round.
    found = sorted(float(memory["clip"]) for memory in memories)
    assert found[0] > 0.012 and found[-1] > 0.08
    # What is accounted does not change: sum and count share one noise multiplier.
    assert ran.rounds[-1]["privacy"]["epsilon"] == pytest.approx(
        {client: epsilon(spends(client, 3), 1e-5) for client in SIZES}, abs=1e-3
    )


def test_noise_is_never_the_same(federate):
    assert federate("rounds=1", *DP).model != federate("rounds=1", *DP).model


def test_a_target_is_met_by_every_client(federate):
    told = ("privacy.sigma=null", "privacy.epsilon=3.0", "rounds=2")
    ran = federate(*DP, *told)
    costs = ran.summary["privacy"]["epsilon"].values()
    assert all(2.9 < cost <= 3.0 for cost in costs)


def test_a_client_whose_budget_is_spent_refuses_and_the_round_goes_on(federate):
    # The larger hospitals' records are sampled less, and so cost less.
    ran = federate("rounds=3", *DP, "privacy.max_epsilon=5.2")
    last = ran.rounds[-1]
    assert last["failed"] and last["answered"]
    for client, reason in last["failed"].items():
        assert f"client '{client}' has reached its budget" in reason
        assert epsilon(spends(client, 3), 1e-5) > 5.2
    assert max(ran.summary["privacy"]["ledger_epsilon"].values()) <= 5.2


SILO = {"partition-id": 0, "num-partitions": 1}


@pytest.mark.parametrize(
    ("config", "overrides", "reason"),
    [
        ({"privacy": "record_dp"}, (), "demands privacy=record_dp, the run has privacy=none"),
        ({"max-epsilon": 1.0}, (), "allows max-epsilon=1, the run has no privacy"),
        ({"max-epsilon": 0.5}, DP, "has reached its budget"),
        ({"max-epsilon": "much"}, DP, "--node-config max-epsilon=much must be positive"),
        ({"delta": 2}, DP, "--node-config delta=2 must be between 0 and 1"),
    ],
)
def test_a_silos_policy_goes_before_the_run(config, overrides, reason, federate):
    with pytest.raises(FedproofError, match=reason):
        federate("rounds=1", *overrides, nodes=[SILO | config])


def test_an_answer_without_its_cost_does_not_count(federate):
    from task.wire import Cohort

    def silent(reply):
        if reply.metadata.message_type == "train":
            cohort = Cohort.unpack(reply.content)
            for part in cohort.parts.values():
                del part["privacy"]
            reply.content = cohort.pack()
        return reply

    with pytest.raises(FedproofError, match="does not say what privacy it cost"):
        federate("rounds=1", *DP, tamper=silent)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("privacy.sigma=null",), "needs either privacy.sigma.*0 of them are given"),
        (("privacy.epsilon=1.0",), "2 of them are given"),
        (("privacy.sigma=0.0",), "privacy.sigma must be positive"),
        (("privacy.sigma=null", "privacy.epsilon=-1.0"), "privacy.epsilon must be positive"),
        (("privacy.delta=0.0",), r"privacy.delta must lie in \(0, 1\)"),
        (("privacy.clip=0.0",), "privacy.clip must be positive"),
        (("privacy.clipping=round",), "privacy.clipping must be one of flat, per_layer"),
        (("task.scaling=federated",), "not noise.*choose task.scaling=local"),
        (("train.max_grad_norm=1.0",), "leave train.max_grad_norm out"),
        (("privacy.quantile=0.5", "privacy.clipping=per_layer"), "adapts one clip"),
        (("privacy.quantile=1.0",), r"privacy.quantile must lie in \(0, 1\)"),
        (("privacy.physical_batch=0",), "privacy.physical_batch must be at least 1"),
    ],
)
def test_settings_that_protect_nobody(overrides, sentence):
    with pytest.raises(FedproofError, match=sentence):
        mechanism_of(compose((*DP, *overrides)))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [(15, "15 training rows, fewer than train.batch_size=16"), (10**5, "must be below 1 / rows")],
)
def test_clients_that_do_not_fit(rows, sentence):
    with pytest.raises(FedproofError, match=sentence):
        mechanism_of(compose(DP)).mechanism("ward", rows)


def test_what_was_spent_is_shown(federate, capsys):
    ran = federate(*DP, "rounds=2")
    shown = capsys.readouterr().out
    assert "ε per record, at most" in shown and "· ε " in shown
    assert len(list((ran.directory / "ledgers").glob("*.jsonl"))) == 4
    assert ran.summary["privacy"]["accountant"] == "PLD"


def test_a_bad_setting_is_refused_in_one_sentence(federate):
    with pytest.raises(FedproofError, match=r"^privacy=record_dp needs either privacy\.sigma"):
        federate("privacy=record_dp")
