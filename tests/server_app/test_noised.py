"""Runs whose held-out figures come from noised sums, or that have none."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from benchmarks.data import hospitals
from conf.compose import compose
from conf.errors import FedproofError
from server_app.federation.validation import InvalidAnswerError
from server_app.noised import NoisedSums
from server_app.privacy.account import Account
from server_app.report.page import write_report
from task.objectives import Binary
from task.privacy.accounting import Spend, epsilon
from task.privacy.ledger import Ledger
from tests.conftest import Ran

RUN = ("task.scaling=local", "model=logistic", "train.batch_size=20", "rounds=2", "train.steps=1")
RECORD = (*RUN, "privacy=record_dp", "privacy.epsilon=16.0", "privacy.evaluation=noised")
CLIENT = (
    "task=synthetic", "task.clients=8", "rounds=2", "privacy=client_dp", "privacy.sigma=0.6",
    "privacy.delta=1e-2", "privacy.evaluation=noised", "federation.fraction_evaluate=1",
)  # fmt: skip


def spends(ran: Ran) -> dict[str, list[Spend]]:
    """What each client's ledger says."""
    return {
        path.name.split("-")[0]: [entry.spend for entry in Ledger(path).entries()]
        for path in (ran.directory / "ledgers").glob("*.jsonl")
    }


def test_figures_are_noised_counted_and_labelled(federate):
    ran = federate(*RECORD)
    for line in ran.rounds:
        assert line["evaluation"] == "noised" and line["evaluated"] == 4
        assert 0 <= line["held_out"]["accuracy"] <= 1 and line["mean"] == {}
        assert 0 < line["standard_error"]["accuracy"] < 0.15
    facts, privacy = ran.summary["evaluation"], ran.summary["privacy"]
    assert facts["kind"] == "noised" and facts["evaluations"] == 2
    # A quarter of ε for evaluations alone; all together is what was asked for.
    assert facts["epsilon"] == pytest.approx(4.0, abs=0.01)
    assert privacy["epsilon_most"] == pytest.approx(16.0, rel=0.01)
    assert privacy["epsilon_most"] <= 16.0
    assert "noise of their own" in privacy["assumptions"]
    for client, spent in spends(ran).items():
        assert epsilon(spent, 1e-5) == pytest.approx(privacy["epsilon"][client], abs=1e-3)
        assert len(spent) == 4
    assert ran.summary["standard_error"] == ran.rounds[-1]["standard_error"]
    page = write_report(ran.directory).read_text()
    assert "from sums with noise of standard error" in page
    assert "privacy.evaluation=noised" in page


def test_exact_evaluation_says_that_held_out_rows_are_not_protected(federate):
    ran = federate(*RUN)
    assert ran.summary["evaluation"]["kind"] == "exact" and "evaluation" not in ran.rounds[0]
    assert "held-out rows, on which models are evaluated, are not protected" in (
        write_report(ran.directory).read_text()
    )


def test_nothing_is_evaluated_where_nothing_may_leave(federate):
    ran = federate(*RECORD[:-1], "privacy.evaluation=none")
    assert all("held_out" not in line for line in ran.rounds)
    assert not [m for m in ran.grid.sent if m.metadata.message_type == "evaluate"]
    assert ran.summary["held_out"] == {} and ran.summary["evaluation"]["kind"] == "none"
    assert "2 rounds, not evaluated" in write_report(ran.directory).read_text()
    for more in ("select=best", "stop.patience=1"):
        with pytest.raises(FedproofError, match="privacy.evaluation=none tells nothing"):
            federate(*RECORD[:-1], "privacy.evaluation=none", more)
    with pytest.raises(FedproofError, match="compare=true tells exact figures"):
        federate(*RECORD, "compare=true")


def test_silos_that_demand_privacy_train_without_being_evaluated(federate, tmp_path):
    nodes = [{"data": str(p), "privacy": "record_dp"} for p in hospitals.main(tmp_path / "data")]
    nodes = [node | {"ledger": str(tmp_path / str(i))} for i, node in enumerate(nodes)]
    ran = federate(*RECORD[:-1], nodes=nodes)
    for line in ran.rounds:
        assert len(line["answered"]) == 4 and "held_out" not in line
        assert "not answered under this silo's policy" in line["evaluation_abandoned"][0]
    assert ran.summary["held_out"] == {}
    assert "not answered under this silo" in write_report(ran.directory).read_text()


@pytest.mark.parametrize("selected", ["select=best", "stop.patience=1", "stop.metric=f1"])
def test_models_are_chosen_by_noised_figures(federate, selected):
    ran = federate(*RECORD, selected)
    assert ran.summary["held_out"]["accuracy"] > 0.2


def test_noise_that_hides_everything_is_said(federate):
    ran = federate(*RECORD, "privacy.epsilon=0.4")
    for line in ran.rounds:
        assert "held_out" not in line
        assert "the noise is larger" in line["evaluation_abandoned"][0]
    # It was paid for all the same.
    assert ran.summary["evaluation"]["evaluations"] == 2


def test_a_refused_evaluation_does_not_end_the_run(federate):
    """The budget allows training, and no evaluation beside it."""
    ran = federate(*RECORD, "rounds=1", "privacy.max_epsilon=15.5")
    (line,) = ran.rounds
    assert len(line["answered"]) == 4 and line["evaluated"] == 0 and "held_out" not in line
    assert "reached its budget" in line["evaluation_abandoned"][0]
    assert ran.summary["held_out"] == {}


@pytest.mark.parametrize(
    "more", [("privacy.placement=local",), ("federation.fraction=0.5",), ("privacy.noise=tree",)]
)
def test_at_client_level_a_whole_client_is_bounded(federate, more):
    ran = federate(*CLIENT, *more)
    privacy = ran.summary["privacy"]
    evaluation = ran.summary["evaluation"]
    assert evaluation["evaluations"] == 2 and 0 < evaluation["epsilon"] < privacy["epsilon_most"]
    for line in ran.rounds:
        assert line["evaluated"] == 8


def test_under_secure_sums_the_hidden_vector_holds_the_noise(federate, monkeypatch):
    masked = []
    from client_app.secure.secagg import SecAggClients

    hidden = SecAggClients.hidden

    def record(self, client, told, update, weight, figures):
        if not len(update):
            masked.append(figures)
        return hidden(self, client, told, update, weight, figures)

    monkeypatch.setattr(SecAggClients, "hidden", record)
    ran = federate(*RECORD, "aggregation=secagg", "aggregation.min_cohort=3", nodes=1)
    assert len(masked) == 8
    for figures in masked:
        assert set(figures) == {"outcomes", "scores", "loss"}
        # No count is whole: each holds noise before it is masked.
        assert all(abs(value - round(value)) > 1e-9 for value in figures["outcomes"])
    summed = np.sum([figures["outcomes"] for figures in masked[:4]], 0)
    right = summed[0] + summed[3]
    assert ran.rounds[0]["held_out"]["accuracy"] == pytest.approx(right / summed.sum(), abs=1e-4)
    assert ran.rounds[0]["standard_error"]["accuracy"] > 0


SUMS = {"outcomes": [3.0, -4.0, 5.0, 6.0], "scores": [0.5] * 16, "loss": [-2.0]}


def noised(*overrides):
    settings = compose((*RECORD, *overrides))
    return NoisedSums(Binary(), "accuracy", Account(settings))


@pytest.mark.parametrize(
    "spoilt",
    [
        {"outcomes": [1e9, 0.0, 0.0, 0.0]},
        {"outcomes": [-1e3, 0.0, 0.0, 0.0]},
        {"outcomes": [0.0]},
        {"extra": [0.0]},
        {"loss": [float("nan")]},
    ],
)
def test_sums_that_no_rows_and_no_noise_make_are_refused(spoilt):
    sums = noised()
    sums.add(SUMS, 1, 10, 4.0)
    with pytest.raises(InvalidAnswerError):
        sums.add(SUMS | spoilt, 1, 10, 4.0)


def test_a_client_counts_as_one_row_at_most_where_clients_are_protected():
    private = ("privacy=client_dp", "privacy.epsilon=4.0", "privacy.delta=1e-3")
    sums = NoisedSums(
        Binary(), "accuracy", Account(compose((*private, "privacy.evaluation=noised")))
    )
    sums.add(SUMS | {"outcomes": [0.5, 0.0, 0.0, 0.5]}, 1, 1000, 1e-4 + 1.0)
    with pytest.raises(InvalidAnswerError):
        sums.add(SUMS | {"outcomes": [50.0, 0.0, 0.0, 0.0]}, 1, 1000, 1.0)


def test_a_client_that_claims_more_noise_does_not_blind_the_others():
    sums, honest = noised(), compose(RECORD)
    sigma = Account(honest).evaluation_sigma
    assert sigma is not None
    told = ConfigRecord({"sigma": sigma, "rate": 1.0, "steps": 1})
    assert sums.variance_of(RecordDict({"privacy": told})) > 0
    with pytest.raises(InvalidAnswerError, match="not the run's"):
        sums.variance_of(RecordDict({"privacy": ConfigRecord({**told, "sigma": 1e6})}))
    # With a given noise for training, evaluation's depends on a client's rows.
    given = noised("privacy.epsilon=null", "privacy.sigma=2.0")
    assert given.variance_of(RecordDict({"privacy": told})) > 0
