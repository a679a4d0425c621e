"""Who lies about held-out rows is left out of the evaluation, whoever answers first."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from tests.conftest import Ran
from tests.server_app.hostile.lies import SHORT, UGLY, Lie, lied, tell

FIRST, NODE = "cleveland", 100
"""The client whose answer the server adds up first, and its node."""


def sums(change: Callable[[dict[str, list[float]]], object]) -> Lie:
    """Return a lie about the sums of a client's evaluation."""

    def lie(part: RecordDict) -> None:
        record = part["statistics"]
        told = {key: [float(v) for v in values] for key, values in record.items()}
        change(told)
        part["statistics"] = ConfigRecord(told)

    return lie


def times(factor: float) -> Callable[[dict[str, list[float]]], object]:
    def change(told: dict[str, list[float]]) -> None:
        for key, values in told.items():
            told[key] = [factor * value for value in values]

    return change


LIES: dict[str, Lie] = {
    "a sum that the others lack": sums(lambda told: told.update(more=[1.0])),
    "a sum with a name to be printed": sums(lambda told: told.update({UGLY[:9]: [1.0]})),
    "a longer histogram": sums(lambda told: told["positives"].append(0.0)),
    "an empty one": sums(lambda told: told.update(positives=[], negatives=[])),
    "no loss": sums(lambda told: told.pop("loss")),
    "owed rows": sums(times(-1.0)),
    "a million times its rows": sums(times(1e6)),
    "all that a number holds": sums(times(1e305)),
    "NaN": sums(lambda told: told.update(loss=[float("nan")])),
    "no sums": lambda part: part.pop("statistics"),
    "sums that are metrics": lambda part: part.__setitem__("statistics", MetricRecord({"a": 1.0})),
    "more rows than it joined with": tell(**{"num-examples": 105}),
    "a metric named like a column": tell(round=7.0),
    "a metric of megabytes": tell(**{UGLY: 0.0}),
    "two sets of metrics": lambda part: part.__setitem__("more", part["metrics"]),
}


@pytest.mark.parametrize("name", LIES)
def test_the_figures_are_those_of_the_others(name: str, federate: Callable[..., Ran]) -> None:
    tamper = lied("evaluate", LIES[name], FIRST, NODE)
    ran = federate(*SHORT, nodes=4, tamper=tamper)
    (line,) = ran.rounds
    assert list(line["evaluation_failed"]) == [FIRST] and line["evaluated"] == 3
    assert line["evaluation_failed"][FIRST].isprintable()
    assert set(ran.summary["held_out"]) >= {"accuracy", "auroc", "loss"}
    assert 0 <= line["held_out"]["accuracy"] <= 1 and line["held_out"]["loss"] < 2
    assert set(line["worst_decile"]) == set(line["mean"]) and "more" not in line["mean"]
