"""Runs whose server sees sums only: the same models, whoever drops out, and nothing else seen."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import ArrayRecord, MetricRecord

from conf.errors import FedproofError
from task.wire import Cohort, records
from tests.server_app.secure.runs import SHORT, TASKS, difference, without


@pytest.mark.parametrize("task", TASKS)
def test_the_model_is_that_of_plain_aggregation(federate, task):
    plain = federate(*TASKS[task])
    for nodes in (1, 4):
        hidden = federate(*TASKS[task], "aggregation=secagg", nodes=nodes)
        facts = hidden.summary["secure"]
        # What a round's encoding changes goes through the training of the rounds after it.
        assert difference(plain, hidden) <= 20 * facts["error"] + 1e-6
        assert facts["error"] < 1e-5 and facts["smallest_sum"] == 4 and not facts["abandoned"]
        for name, value in plain.summary["held_out"].items():
            assert hidden.summary["held_out"][name] == pytest.approx(value, abs=2e-3)


def test_one_round_is_within_the_bound_that_is_told(federate):
    plain = federate("rounds=1", "evaluate_every=1")
    hidden = federate("rounds=1", "aggregation=secagg")
    # Single precision adds half a unit in the last place of weights below 2.
    assert difference(plain, hidden) <= hidden.rounds[0]["secure"]["error"] + 2.0**-23
    assert hidden.rounds[0]["train"]["loss"] == pytest.approx(plain.rounds[0]["train"]["loss"])
    assert hidden.summary["held_out"] == pytest.approx(plain.summary["held_out"], abs=1e-5)


def test_nodes_do_not_matter_and_rounding_may_be_random(federate):
    one = federate(*SHORT, "rounds=2", "aggregation=secagg")
    four = federate(*SHORT, "rounds=2", "aggregation=secagg", nodes=4)
    assert one.model == four.model
    random = federate(*SHORT, "rounds=2", "aggregation=secagg", "aggregation.rounding=stochastic")
    assert 0 < difference(one, random) <= 40 * random.summary["secure"]["error"] + 1e-6


@pytest.mark.parametrize("strategy", ["fedavgm", "fedprox", "fedadam", "fedyogi", "fedadagrad"])
def test_strategies_of_means(federate, strategy):
    told = (*SHORT, "rounds=2", f"strategy={strategy}")
    plain, hidden = federate(*told), federate(*told, "aggregation=secagg")
    # Adaptive strategies divide by the root of small second moments.
    assert difference(plain, hidden) <= 1e-3


def test_sixteen_bits_halve_the_traffic(federate):
    told = (*SHORT, "rounds=1", "model.hidden=[64]")
    wide = federate(*told, "aggregation=secagg")
    narrow = federate(
        *told, "aggregation=secagg", "aggregation.bits=16", "aggregation.max_weight=250",
        "aggregation.range=0.5",
    )  # fmt: skip
    assert difference(wide, narrow) <= narrow.summary["secure"]["error"] + 1e-6
    masked = {
        run: sum(len(a.data) for r in replies(run, "train") for a in r.values())
        for run in (wide, narrow)
    }
    assert masked[narrow] < 0.55 * masked[wide]


def replies(run: Any, kind: str) -> list[ArrayRecord]:
    found = []
    for told, answer in run.grid.answered:
        if told.metadata.message_type == kind:
            for part in Cohort.unpack(answer.content).parts.values():
                found += records(part, ArrayRecord)
    return found


def test_what_the_server_gets_holds_no_client_s_own_figures(federate):
    run = federate(*SHORT, "rounds=2", "aggregation=secagg")
    seen = 0
    for told, answer in run.grid.answered:
        cohort = Cohort.unpack(answer.content)
        assert cohort.total is None
        if "train" in cohort.header:
            assert set(cohort.header["train"]) | set(cohort.header["test"]) <= {0, 1}
        for part in cohort.parts.values():
            assert not records(part, MetricRecord)
            if told.metadata.message_type in ("train", "evaluate"):
                assert set(part) == {"masked", "layout"}
                assert [a.dtype for a in part["masked"].values()] == ["uint32"]
                seen += 1
    assert seen == 16
    assert not (run.directory / "clients.jsonl").read_text()
    start = (run.directory / "run.json").read_text()
    assert '"train_rows": null' in start


@pytest.mark.parametrize("stage", ["share", "train", "agree", "unmask"])
def test_a_client_that_drops_out_at_any_stage(federate, stage):
    """The sum holds those whose vectors arrived; the client is back in the next round."""
    run = federate(*SHORT, "rounds=2", "aggregation=secagg", tamper=without("va", stage))
    arrived = 3 if stage in ("share", "train") else 4
    assert [line["secure"]["sums"] for line in run.rounds] == [[arrived], [4]]
    assert ("va" in run.rounds[0]["failed"]) == (arrived == 3)
    assert "held_out" in run.rounds[0]
    if arrived == 4:
        assert run.model == federate(*SHORT, "rounds=2", "aggregation=secagg").model


def test_below_the_threshold_a_round_is_abandoned_and_the_run_goes_on(federate):
    first, second = without("va", "train"), without("hungary", "train")
    run = federate(*SHORT, "rounds=2", "aggregation=secagg", tamper=lambda r: second(first(r)))
    lost, whole = run.rounds
    assert lost["secure"]["sums"] == [] and lost["answered"] == []
    (why,) = lost["secure"]["abandoned"]
    assert "2 of 4 clients sent a vector" in why and "the sum stays masked" in why
    assert whole["secure"]["sums"] == [4]
    assert run.summary["secure"]["abandoned"] == 1


def test_too_few_signatures_or_shares_end_a_round_as_well(federate):
    for stage in ("agree", "unmask"):
        faults = [without(client, stage) for client in ("va", "hungary")]
        run = federate(
            *SHORT, "rounds=2", "aggregation=secagg",
            tamper=lambda r, f=faults: f[1](f[0](r)),
        )  # fmt: skip
        assert [line["secure"]["sums"] for line in run.rounds] == [[], [4]]


def test_a_run_without_any_sum_ends_in_one_sentence(federate):
    rounds = tuple(range(1, 9))
    faults = [without(client, "train", rounds) for client in ("va", "hungary")]
    with pytest.raises(FedproofError, match="3 rounds in a row were abandoned"):
        federate(*SHORT, "rounds=9", "aggregation=secagg", tamper=lambda r: faults[1](faults[0](r)))


REFUSED = {
    "krum": (["strategy=krum"], "looks at each update"),
    "qfedavg": (["strategy=qfedavg"], "looks at what each client answers"),
    "groups for means": (["aggregation.groups=2"], "does not need them"),
    "federated scaling": (["task.scaling=federated"], "choose task.scaling=local"),
    "rows for weights": (["privacy=client_dp", "privacy.sigma=1", "privacy.delta=0.1",
                          "privacy.max_rows=9"], "needs each client's number of rows"),
    "few clients": (["federation.fraction=0.5"], "fewer than the 3 whose sums may be seen"),
    "small groups": (["strategy=fedmedian", "aggregation.groups=2"], "fewer than the 6"),
    "low threshold": (["aggregation.threshold=0.4"], "choose at least 0.5"),
    "odd modulus": (["aggregation.bits=24"], "must be 16 or 32"),
    "little cohort": (["aggregation.min_cohort=2"], "demands min-cohort=3 at least"),
    "narrow range": (["aggregation.range=1e-9"], "beyond aggregation.range"),
    "heavy clients": (["aggregation.max_weight=9"], "not between 1 and aggregation.max_weight=9"),
    "noise for groups": (["privacy=distributed_dp", "privacy.sigma=1", "aggregation.groups=2"],
                         "leave aggregation.groups out"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_in_one_sentence(federate, case):
    overrides, sentence = REFUSED[case]
    with pytest.raises(FedproofError, match=sentence) as refused:
        federate(*SHORT, "rounds=1", "aggregation=secagg", *overrides)
    assert "\n" not in str(refused.value)


def test_robust_strategies_look_at_sums_of_groups(federate):
    told = (
        "task=vision", "federation.clients=12", "rounds=2", "train.steps=2", "aggregation=secagg",
        "aggregation.groups=4",
    )  # fmt: skip
    for strategy in ("fedmedian", "fedtrimmedavg", "krum", "multikrum"):
        run = federate(*told, f"strategy={strategy}")
        assert [line["secure"]["sums"] for line in run.rounds] == [[3, 3, 3, 3]] * 2
        assert run.summary["secure"]["smallest_sum"] == 3


def test_a_defence_looks_at_sums_of_groups(federate):
    run = federate(
        "task=vision", "federation.clients=12", "rounds=1", "train.steps=2", "aggregation=secagg",
        "aggregation.groups=4", "defence=norm_clip", "defence.then=[bucketing]",
    )  # fmt: skip
    assert set(run.rounds[0]["anomaly"]) == {f"group {i}" for i in (1, 2, 3, 4)}
    assert set(run.rounds[0]["defence"]) == {"clipped"}


def test_central_noise_on_a_secure_sum(federate):
    run = federate(
        *SHORT, "rounds=2", "aggregation=secagg", "privacy=client_dp", "privacy.sigma=1",
        "privacy.delta=0.1",
    )  # fmt: skip
    plain = federate(
        *SHORT, "rounds=2", "privacy=client_dp", "privacy.sigma=1", "privacy.delta=0.1"
    )
    assert run.summary["privacy"]["epsilon"] == plain.summary["privacy"]["epsilon"]
    # Who is in them is secret, and so is how many there are.
    assert not any("secure" in line for line in run.rounds)


def test_record_level_privacy_under_masks(federate):
    run = federate(*SHORT, "rounds=1", "aggregation=secagg", "privacy=record_dp",
                   "privacy.sigma=1", "privacy.delta=1e-4")  # fmt: skip
    assert run.summary["privacy"]["unit"] == "record"
    assert set(run.summary["privacy"]["epsilon"]) == {"cleveland", "hungary", "switzerland", "va"}
