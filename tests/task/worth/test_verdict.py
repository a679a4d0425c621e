"""Evidence built to land in each branch."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from task.worth.evidence import Evidence, odd_clients
from task.worth.verdict import Decision, decide, still_improving

NAMES = ("a", "b", "c", "d")
SEEDS = 5


def evidence(
    gains: tuple[float, ...], noise: float = 0.004, seeds: int = SEEDS, **more: object
) -> Evidence:
    """Local models at 0.7, federated ones better by `gains`, each measured with some noise."""
    rng = np.random.default_rng(0)
    shape = (seeds, len(gains))
    rows = np.full(len(gains), 200.0)
    told = {
        "metric": "accuracy", "clients": NAMES[: len(gains)],
        "federated": 0.7 + np.array(gains) + rng.normal(0, noise, shape),
        "local": 0.7 + rng.normal(0, noise, shape), "train_rows": rows, "test_rows": rows,
        "divergence": 0.2,
    }  # fmt: skip
    return Evidence(**{**told, **more})  # type: ignore[arg-type]


def test_everybody_gains() -> None:
    told = decide(evidence((0.05, 0.06, 0.05, 0.04)))
    assert told.decision is Decision.federate and not told.centralise
    assert told.sentence.startswith("federate: on average clients gain 4.9 points")
    assert "5 seeds, 4 clients" in told.sentence and "95 % interval" in told.sentence
    assert {client.effect for client in told.clients} == {"gains"}


def test_most_gain_and_one_loses() -> None:
    names = tuple("abcdefghij")
    told = decide(evidence((*[0.15] * 9, -0.03), clients=names))
    assert told.decision is Decision.most
    assert "worth it for 9 of 10 clients, better off alone: j" in told.sentence


def test_worth_it_for_some() -> None:
    told = decide(evidence((0.06, 0.0, 0.0, -0.04)))
    assert told.decision is Decision.some
    assert told.sentence.startswith("worth it for a, neutral for b and c, better off alone: d; ")


def test_worth_it_for_nobody() -> None:
    told = decide(evidence((0.0, 0.0, 0.0, -0.15)))
    assert told.decision is Decision.none
    assert told.sentence.startswith("worth it for nobody: neutral for a, b and c, better off alone")


def test_some_gain_although_most_lose() -> None:
    told = decide(evidence((0.08, -0.05, -0.06, -0.05)))
    assert told.decision is Decision.some and told.gain.mean < 0
    assert told.sentence.startswith("worth it for a, better off alone: b, c and d; on average")


def test_clients_with_too_few_rows_decide_nothing_for_themselves() -> None:
    rows = np.full(4, 9.0)
    told = decide(evidence((0.0, 0.0, 0.0, -0.15), noise=0.001, test_rows=rows))
    assert {client.effect for client in told.clients} == {"unclear"}
    assert told.decision in (Decision.neutral, Decision.undecided)


def test_the_documentation_names_every_verdict() -> None:
    page = Path(__file__).parents[3].joinpath("docs", "worth-it.md").read_text(encoding="utf-8")
    table = page.split("| on average | single clients | verdict |")[1].split("\n\n")[0]
    verdicts = {re.split("[:;]", line.split("|")[3])[0].strip() for line in table.splitlines()[2:]}
    assert verdicts == {decision.value for decision in Decision}


def test_gains_of_rates_stay_possible() -> None:
    told = decide(evidence((0.02, -0.01), noise=0.1, seeds=2))
    for client in told.clients:
        assert client.gain.low is not None and client.gain.high is not None
        assert -1 <= client.gain.low <= client.gain.mean <= client.gain.high <= 1


def test_clients_of_made_up_partitions_are_not_singled_out() -> None:
    told = decide(evidence((0.06, 0.0, 0.0, -0.04), named=False))
    assert told.decision is Decision.undecided
    assert "worth it for" not in told.sentence


def test_training_alone_is_better() -> None:
    told = decide(evidence((-0.05, -0.06, -0.05, -0.04)))
    assert told.decision is Decision.alone
    assert "training alone is better: on average clients lose 5." in told.sentence


@pytest.mark.parametrize(("divergence", "alike"), [(0.01, True), (0.3, False), (None, False)])
def test_no_gain_is_not_worth_it(divergence: float | None, alike: bool) -> None:
    told = decide(evidence((0.0, 0.0, 0.0, 0.0), divergence=divergence))
    assert told.decision is Decision.neutral
    assert told.sentence.startswith("not worth it: ")
    assert ("clients are alike" in told.sentence) is alike
    assert "within the interval" in told.sentence


def test_a_gain_below_a_point_is_none_however_certain() -> None:
    assert decide(evidence((0.005,) * 4, noise=1e-4)).decision is Decision.neutral


def test_a_wide_interval_decides_nothing() -> None:
    told = decide(evidence((0.01, 0.0, 0.02, 0.0), noise=0.15))
    assert told.decision is Decision.undecided and "more seeds" in told.sentence


def test_one_run_of_one_client_decides_nothing() -> None:
    told = decide(evidence((0.2,), seeds=1))
    assert told.decision is Decision.undecided and "nothing was repeated" in told.sentence
    assert told.clients[0].effect == "unclear"


def test_centralising_gains() -> None:
    some = evidence((0.05, 0.06, 0.05, 0.04))
    told = decide(replace(some, central=some.federated + 0.03))
    assert told.centralise and "centralise if you may: it gains +3.0 points" in told.sentence
    told = decide(replace(some, central=some.federated - 0.03))
    assert not told.centralise and "centralise" not in told.sentence


def test_the_price_of_privacy() -> None:
    some = evidence((0.05, 0.06, 0.05, 0.04))
    told = decide(replace(some, unprotected=some.federated + 0.02))
    assert "privacy costs +2.0 points" in told.sentence


def test_a_metric_that_improves_downwards() -> None:
    some = evidence((0.05, 0.06, 0.05, 0.04))
    told = decide(replace(some, metric="loss", lower_is_better=True))
    assert told.decision is Decision.alone and "points" not in told.sentence
    swapped = replace(
        some, metric="loss", lower_is_better=True, federated=some.local, local=some.federated
    )
    assert decide(swapped).decision is Decision.federate
    assert swapped.margin == pytest.approx(0.0075, abs=1e-4)


def test_shares_stay_shares_and_other_metrics_what_they_are() -> None:
    some = evidence((0.05, 0.06))
    values = np.array([[0.99], [1.0], [0.9]])
    found = some.level(values)
    assert found.high == 1.0 and found.low is not None and found.low < 0.93
    gain = some.interval(np.array([[0.9], [-0.9], [1.0]]))
    assert (gain.low, gain.high) == (-1.0, 1.0)
    # A coefficient of determination of 0.9 can be improved by more than one.
    other = replace(some, metric="r2")
    beyond = other.level(values)
    assert beyond.high is not None and beyond.high > 1.0
    gain = other.interval(np.array([[0.9], [-0.9], [1.0]]))
    assert gain.low is not None and gain.low < -1.0
    assert other.margin == pytest.approx(0.007, abs=1e-4) and "points" not in other.amount(0.1)


def test_local_models_that_were_not_done_are_said_to_be() -> None:
    told = decide(evidence((0.05, 0.06, 0.05, 0.04), improving=0.75))
    assert "raise baselines.local_rounds" in told.sentence


def test_tiny_corrupted_and_failing_clients_are_named() -> None:
    names = ("a", "b", "c", "flipped", "tiny", "late")
    some = evidence((0.0, 0.01, 0.0, -0.5, 0.2, 0.0), clients=names)
    rows = np.array([200, 180, 220, 200, 12, 200.0])
    alignment = np.tile([0.8, 0.82, 0.79, -0.4, 0.78, 0.81], (SEEDS, 1))
    failures = {"late": "3 of 15: no answer in time"}
    some = replace(some, train_rows=rows, alignment=alignment, failures=failures)
    odd = odd_clients(some)
    assert set(odd) == {"flipped", "tiny", "late"}
    assert "check its labels" in odd["flipped"]
    assert "only 12 training" in odd["tiny"]
    assert odd["late"] == "was left out of rounds (3 of 15: no answer in time)"
    effects = {client.name: client.effect for client in decide(some).clients}
    assert (effects["tiny"], effects["flipped"]) == ("unclear", "loses")
    without = odd_clients(replace(some, alignment=None))
    assert "far worse than the others" in without["flipped"]


def test_still_improving() -> None:
    assert still_improving([0.1, 0.2, 0.3, 0.4], 0.01, lower_is_better=False)
    assert not still_improving([0.1, 0.4, 0.4, 0.4], 0.01, lower_is_better=False)
    assert still_improving([4.0, 3.0, 2.0, 1.0], 0.01, lower_is_better=True)
    assert not still_improving([0.5], 0.01, lower_is_better=False)
