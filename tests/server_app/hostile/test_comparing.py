"""Who lies about what it trained alone (``compare=true``) is left out; the run is compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from conf.errors import FedproofError
from server_app.comparison.baselines import KIND
from server_app.comparison.summary import summarize
from server_app.evidence import files
from task.wire import Cohort
from tests.conftest import Ran, run_nodes
from tests.server_app.hostile.lies import LIAR, NODE, SHORT, UGLY, Lie, edited, silent

COMPARED = (*SHORT, "compare=true", "baselines.centralised=false")
NAN, FAR = float("nan"), 1e300


def told(record: str, **figures: Any) -> Lie:
    """Return a lie in one record of the answer; None takes a figure away."""

    def lie(part: RecordDict) -> None:
        target: Any = part[record]
        for key, value in figures.items():
            if value is None:
                del target[key]
            else:
                target[key] = value

    return lie


def scaled(part: RecordDict) -> None:
    record: Any = part["local-statistics"]
    for key, values in list(record.items()):
        record[key] = [1e6 * value for value in values]


def put(record: str, what: Any) -> Lie:
    return lambda part: part.__setitem__(record, what)


UNREAD, UNFIT = "its comparison cannot be read", "do not fit the task"
IMPOSSIBLE, ODD = "is not possible", "not a finite number"
LIES: dict[str, tuple[Lie, str]] = {
    "accuracy of NaN": (told("local", accuracy=NAN), ODD),
    "accuracy of 1e300": (told("local", accuracy=FAR), "not between 0 and 1"),
    "accuracy that is owed": (told("federated", accuracy=-1.0), "not between 0 and 1"),
    "a list for a metric": (told("local", loss=[0.1]), ODD),
    "more rows than it joined with": (told("local", **{"num-examples": 10**6}), "claims 1000000"),
    "no rows": (told("federated", **{"num-examples": 0}), "claims 0 examples"),
    "other rows than its sums": (told("local", **{"num-examples": 1}), UNFIT),
    "a count that is no number": (told("local", **{"num-examples": None}), "claims None"),
    "100,000 metrics": (told("local", **{f"m{i}": 0.0 for i in range(100_000)}), "tells 10000"),
    "a metric of megabytes": (told("local", **{UGLY: 1.0}), "none may have"),
    "no federated model": (lambda part: part.pop("federated"), UNREAD),
    "a model for figures": (put("local", ArrayRecord()), "one set of metrics"),
    "no sums": (lambda part: part.pop("local-statistics"), UNREAD),
    "sums that are metrics": (put("local-statistics", MetricRecord({"a": 1.0})), "one set of"),
    "a sum that the others lack": (told("local-statistics", more=[1.0]), UNFIT),
    "a longer histogram": (told("local-statistics", positives=[0.0] * 9999), UNFIT),
    "a million times its rows": (scaled, UNFIT),
    "no facts": (lambda part: part.pop("facts"), UNREAD),
    "facts that are metrics": (put("facts", MetricRecord({"steps": 1})), UNREAD),
    "an alignment of NaN": (told("facts", alignment=NAN), UNREAD),
    "an alignment of 7": (told("facts", alignment=7.0), IMPOSSIBLE),
    "a text for steps": (told("facts", steps=UGLY[:99]), UNREAD),
    "2^63 steps": (told("facts", steps=2**63 - 1), IMPOSSIBLE),
    "steps that are owed": (told("facts", steps=-1), IMPOSSIBLE),
    "a curve of a million": (told("facts", curve=[0.5] * 10**6), IMPOSSIBLE),
    "a curve of texts": (told("facts", curve=["<script>"]), UNREAD),
    "a curve that is none": (told("facts", curve=0.5), UNREAD),
}


def twice(reply: Message) -> Message | list[Message]:
    mine = (reply.metadata.message_type, reply.metadata.src_node_id) == (KIND, NODE)
    return [reply, reply] if mine else reply


def with_error(cohort: Cohort) -> Cohort:
    """Fail, with an error text of megabytes and escapes."""
    return replace(cohort, parts={}, errors={LIAR: UGLY})


MANY = (*COMPARED, "partition=iid", "federation.clients=40")


def baselines(ran: Ran) -> dict[str, Any]:
    told = files.read_json(ran.directory / files.BASELINES)
    assert ran.model and summarize(ran.directory) is not None
    return told


@pytest.fixture(scope="module")
def lied_to(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[str, Any]]:
    """Who tells which lie, when there is a client for each; and what came of it."""
    honest = baselines(run_nodes(tmp_path_factory.mktemp("honest"), *MANY))
    liars = dict(zip(sorted(honest["clients"]), LIES, strict=False))

    def edit(cohort: Cohort) -> Cohort:
        for client, name in liars.items():
            LIES[name][0](cohort.parts[client])
        return cohort

    def tamper(reply: Message) -> Message:
        if reply.metadata.message_type == KIND:
            reply.content = edit(Cohort.unpack(reply.content)).pack()
        return reply

    told = baselines(run_nodes(tmp_path_factory.mktemp("lied"), *MANY, tamper=tamper))
    assert told["clients"] == {c: t for c, t in honest["clients"].items() if c not in liars}
    assert len(told["clients"]) == 40 - len(LIES) and set(told["failed"]) == set(liars)
    return {name: client for client, name in liars.items()}, told["failed"]


@pytest.mark.parametrize("name", LIES)
def test_who_lies_is_left_out_and_the_others_are_compared(
    name: str, lied_to: tuple[dict[str, str], dict[str, Any]]
) -> None:
    liars, failed = lied_to
    reason = failed[liars[name]]
    assert LIES[name][1] in reason and reason.isprintable() and len(reason) <= 401


FAULTS: dict[str, tuple[Callable[[Message], Any], str]] = {
    "no answer": (silent(KIND), "no answer in time"),
    "two answers": (twice, "answered more than once"),
    "an error of megabytes": (edited(KIND, with_error), "owned"),
    "nothing of its client": (edited(KIND, lambda c: replace(c, parts={})), "left it out"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_whose_node_fails_is_left_out(name: str, federate: Callable[..., Ran]) -> None:
    tamper, says = FAULTS[name]
    told = baselines(federate(*COMPARED, nodes=4, tamper=tamper))
    assert list(told["failed"]) == [LIAR] and len(told["clients"]) == 3
    reason = told["failed"][LIAR]
    assert says in reason and reason.isprintable() and len(reason) <= 401


def test_a_run_that_nobody_lets_compare_keeps_its_model(
    federate: Callable[..., Ran], tmp_path: Any
) -> None:
    def tamper(reply: Message) -> Message | None:
        return None if reply.metadata.message_type == KIND else reply

    with pytest.raises(FedproofError, match="no client could train alone"):
        federate(*COMPARED, tamper=tamper, directory=tmp_path / "run")
    plain = federate(*SHORT)
    assert (tmp_path / "run" / files.MODEL).read_bytes() == plain.model
    assert files.read_json(tmp_path / "run" / files.SUMMARY)["held_out"]
