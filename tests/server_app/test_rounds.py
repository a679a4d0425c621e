"""The federated loop, end to end in this process: same model on any nodes, resuming, stopping."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message

from conf.errors import FedproofError
from task.wire import HEADER, Cohort
from tests.conftest import interrupt
from tests.server_app.test_faults import rewrite

SHORT = ("rounds=3", "model.hidden=[8]")


@pytest.mark.parametrize("nodes", [2, 4])
@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedyogi"])
def test_the_model_does_not_depend_on_the_nodes(
    nodes: int, strategy: str, federate: Callable[..., Any]
) -> None:
    one = federate(*SHORT, f"strategy={strategy}")
    many = federate(*SHORT, f"strategy={strategy}", nodes=nodes)
    assert one.model == many.model
    assert one.summary["held_out"] == many.summary["held_out"]
    assert one.summary["bytes_up"] == many.summary["bytes_up"]


def test_a_node_that_dies_costs_its_clients_only(federate: Callable[..., Any]) -> None:
    def dead(reply: Message) -> Message | None:
        training = reply.metadata.message_type == "train"
        return None if training and reply.metadata.src_node_id == 101 else reply

    def crashed(reply: Message) -> Message | None:
        gone = dead(reply) is None
        return Message(Error(8, "killed"), reply_to=reply) if gone else reply

    lost = federate("rounds=1", nodes=4, tamper=dead)
    assert lost.rounds[0]["failed"] == {"hungary": "no answer in time"}
    broken = federate("rounds=1", nodes=4, tamper=crashed)
    assert len(broken.rounds[0]["answered"]) == 3


def test_other_code_or_settings_are_refused(federate: Callable[..., Any]) -> None:
    def other(kind: str) -> Callable[[Message], Message]:
        def tamper(reply: Message) -> Message:
            if reply.metadata.src_node_id == 100:
                change = {"header": {**Cohort.unpack(reply.content).header, kind: "0" * 64}}
                return rewrite(reply, lambda c: Cohort(c.parts, c.errors, change["header"]))
            return reply

        return tamper

    for kind in ("code", "config"):
        ran = federate("rounds=1", nodes=4, tamper=other(kind))
        run = json.loads((ran.directory / "run.json").read_text())
        assert run["clients"] == 3
        assert f"other {kind}" in run["refused"][0]


def test_a_client_refuses_a_server_with_other_settings(federate: Callable[..., Any]) -> None:
    from client_app.app import app

    ran = federate("rounds=1")
    message = ran.grid.sent[1]
    cohort = Cohort.unpack(message.content)
    header = {**cohort.header, "config": "0" * 64}
    message.content = Cohort(cohort.parts, header=header).pack()
    reply = app(message, ran.grid._contexts[100])
    answer = Cohort.unpack(reply.content)
    assert not answer.parts
    assert "other config" in str(answer.header["refused"])
    assert set(reply.content.keys()) == {HEADER}


def test_below_min_clients_the_round_is_retried_then_the_run_fails(
    federate: Callable[..., Any], tmp_path: Path
) -> None:
    calls = []

    def failing(until: int) -> Callable[[Message], Message | None]:
        def tamper(reply: Message) -> Message | None:
            if reply.metadata.message_type != "train":
                return reply
            calls.append(1)
            return None if len(calls) <= until else reply

        return tamper

    ran = federate("rounds=1", "federation.min_clients=4", tamper=failing(1))
    assert ran.rounds[0]["attempts"] == 2
    calls.clear()
    with pytest.raises(FedproofError, match=r"round 1: 0 of the 4 .*no answer in time"):
        federate("rounds=1", "federation.min_clients=4", tamper=failing(99))
    assert len(calls) == 2


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam", "fedyogi"])
@pytest.mark.parametrize("every", [1, 2])
def test_interrupted_then_resumed_equals_uninterrupted(
    strategy: str, every: int, federate: Callable[..., Any], tmp_path: Path
) -> None:
    settings = (f"strategy={strategy}", "model.hidden=[8]", "federation.fraction=0.5", "rounds=6")
    whole = federate(*settings)
    directory = tmp_path / "interrupted"
    interrupt(federate, directory, *settings, f"checkpoint_every={every}", after=3)
    assert not (directory / "summary.json").exists()
    resumed = federate(*settings, f"resume={directory}", directory=directory)
    assert resumed.model == whole.model
    assert resumed.summary["held_out"] == whole.summary["held_out"]
    assert resumed.summary["bytes_up"] == whole.summary["bytes_up"]
    assert [line["round"] for line in resumed.rounds] == [1, 2, 3, 4, 5, 6]
    for mine, theirs in zip(resumed.rounds, whole.rounds, strict=True):
        assert mine["sampled"] == theirs["sampled"]
        assert mine["held_out"] == theirs["held_out"]


def test_resuming_with_other_settings_is_refused(
    federate: Callable[..., Any], tmp_path: Path
) -> None:
    first = federate(*SHORT)
    with pytest.raises(FedproofError, match="other config"):
        federate("model.hidden=[8]", "train.lr=0.5", f"resume={first.directory}",
                 directory=first.directory)  # fmt: skip
    longer = federate("model.hidden=[8]", "rounds=5", f"resume={first.directory}",
                      directory=first.directory)  # fmt: skip
    assert longer.summary["rounds"] == 5


def test_early_stopping_and_the_best_model(federate: Callable[..., Any]) -> None:
    ran = federate("rounds=40", "model.hidden=[8]", "stop.patience=3", "select=best", "train.lr=1")
    curve = [line["held_out"]["accuracy"] for line in ran.rounds]
    assert ran.summary["stopped_early"]
    assert len(curve) < 40
    assert len(curve) - 1 - curve.index(max(curve)) == 3
    assert ran.summary["held_out"]["accuracy"] == max(curve)
    assert ran.summary["evaluated_round"] == curve.index(max(curve)) + 1


def test_an_unknown_metric_is_refused_with_those_there_are(federate: Callable[..., Any]) -> None:
    with pytest.raises(FedproofError, match=r"no metric 'beauty'.*auroc"):
        federate("rounds=1", "stop.metric=beauty")


def test_divergence_is_named(federate: Callable[..., Any]) -> None:
    with pytest.raises(FedproofError, match=r"valid answer|not finite"):
        federate("rounds=30", "train.lr=1e30")


def test_sampling_is_over_clients_and_seeded(federate: Callable[..., Any]) -> None:
    settings = ("rounds=4", "federation.fraction=0.5", "model.hidden=[8]")
    first = [line["sampled"] for line in federate(*settings).rounds]
    again = [line["sampled"] for line in federate(*settings, nodes=3).rounds]
    other = [line["sampled"] for line in federate(*settings, "seed=7").rounds]
    assert first == again != other
    assert all(len(cohort) == 2 for cohort in first)


def test_a_diverse_evaluation_is_recorded_per_client(federate: Callable[..., Any]) -> None:
    ran = federate(*SHORT, "evaluate_every=2")
    assert ["held_out" in line for line in ran.rounds] == [False, True, True]
    rows = [json.loads(line) for line in (ran.directory / "clients.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == [2] * 4 + [3] * 4
    last = {row["client"]: row for row in rows if row["round"] == 3}
    total = sum(row["num-examples"] for row in last.values())
    accuracy = sum(row["accuracy"] * row["num-examples"] for row in last.values()) / total
    assert ran.rounds[-1]["held_out"]["accuracy"] == pytest.approx(accuracy)
    assert ran.rounds[-1]["weighted"]["accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize("nodes", [1, 4])
def test_no_answer_carries_more_than_its_records(nodes: int, federate: Callable[..., Any]) -> None:
    seen: set[tuple[str, ...]] = set()

    def look(reply: Message) -> Message:
        cohort = Cohort.unpack(reply.content)
        seen.update(tuple(sorted(part)) for part in cohort.parts.values())
        return reply

    federate("rounds=1", nodes=nodes, tamper=look)
    trained = ("metrics",) if nodes == 1 else ("arrays", "metrics")
    assert seen == {trained, ("metrics", "statistics")}
