"""The federated loop, end to end in this process: same model on any nodes, faults, resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message

from conf.errors import FedproofError
from server_app import checkpoint
from task.wire import HEADER, Cohort

SHORT = ("rounds=3", "model.hidden=[8]")


def rewrite(reply: Message, change: Callable[[Cohort], Cohort]) -> Message:
    """Return a reply whose cohort was changed on the way."""
    cohort = change(Cohort.unpack(reply.content))
    reply.content = cohort.pack()
    return reply


def spoil(client: str, change: Callable[[Any], None]) -> Callable[[Message], Message]:
    """Return a fault: one client's training answer is changed by `change`."""

    def tamper(reply: Message) -> Message:
        if reply.metadata.message_type != "train":
            return reply

        def edit(cohort: Cohort) -> Cohort:
            if client in cohort.parts:
                change(cohort.parts[client])
            return cohort

        return rewrite(reply, edit)

    return tamper


def put(values: np.ndarray, key: str = "1.weight") -> Callable[[Any], None]:
    def change(part: Any) -> None:
        part["arrays"][key] = Array(values)

    return change


def claim(count: Any) -> Callable[[Any], None]:
    def change(part: Any) -> None:
        part["metrics"]["num-examples"] = count

    return change


SHAPE = (8, 32)
FAULTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "nan": (put(np.full(SHAPE, np.nan, np.float32)), "NaN or infinity"),
    "infinity": (put(np.full(SHAPE, np.inf, np.float32)), "NaN or infinity"),
    "shape": (put(np.zeros((3, 3), np.float32)), "shape (3, 3)"),
    "dtype": (put(np.zeros(SHAPE, np.float64)), "type float64"),
    "extra parameter": (put(np.zeros(1, np.float32), "extra"), "other parameters"),
    "no model": (lambda part: part.pop("arrays"), "exactly one model"),
    "garbage": (
        lambda part: part["arrays"].__setitem__(
            "1.weight", Array("float32", SHAPE, "numpy.ndarray", b"garbage")
        ),
        "cannot be decoded",
    ),
    "negative examples": (claim(-5), "claims -5 examples"),
    "zero examples": (claim(0), "claims 0 examples"),
    "a billion examples": (claim(10**9), "claims 1000000000 examples"),
    "fractional examples": (claim(1.5), "claims 1.5 examples"),
    "loss": (lambda part: part["metrics"].__setitem__("loss", float("nan")), "'loss'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_client_is_excluded_and_named(fault: str, federate: Callable[..., Any]) -> None:
    change, reason = FAULTS[fault]
    # A client alone on its node sends its own model; see below for those that are added up.
    ran = federate("rounds=1", "model.hidden=[8]", nodes=4, tamper=spoil("va", change))
    line = ran.rounds[0]
    assert set(line["failed"]) == {"va"}
    assert reason in line["failed"]["va"]
    assert line["answered"] == ["cleveland", "hungary", "switzerland"]
    without = federate("rounds=1", "model.hidden=[8]", nodes=4, tamper=_silent("va"))
    assert _weights(ran) == _weights(without)


def total(values: np.ndarray, name: str = "total") -> Callable[[Cohort], Cohort]:
    def change(cohort: Cohort) -> Cohort:
        return replace(cohort, total=ArrayRecord({name: Array(values)}))

    return change


def edit_part(client: str, change: Callable[[Any], None]) -> Callable[[Cohort], Cohort]:
    def edit(cohort: Cohort) -> Cohort:
        change(cohort.parts[client])
        return cohort

    return edit


SIZE = 273
BAD_TOTALS: dict[str, tuple[Callable[[Cohort], Cohort], str]] = {
    "nan": (total(np.full(SIZE, np.nan)), "node's sum holds NaN"),
    "length": (total(np.zeros(SIZE - 1)), "node's sum does not fit"),
    "dtype": (total(np.zeros(SIZE, np.float32)), "node's sum does not fit"),
    "name": (total(np.zeros(SIZE), "else"), "node's sum has other parameters"),
    "weight": (edit_part("va", claim(10**9)), "node's sum holds an invalid answer"),
    "none": (lambda cohort: replace(cohort, total=None), "exactly one model"),
}


@pytest.mark.parametrize("fault", BAD_TOTALS)
def test_a_bad_sum_costs_all_clients_in_it(fault: str, federate: Callable[..., Any]) -> None:
    change, reason = BAD_TOTALS[fault]

    def tamper(reply: Message) -> Message:
        training = reply.metadata.message_type == "train"
        # The second of two nodes serves hungary and va.
        return rewrite(reply, change) if training and reply.metadata.src_node_id == 101 else reply

    ran = federate("rounds=1", "model.hidden=[8]", nodes=2, tamper=tamper)
    assert ran.rounds[0]["answered"] == ["cleveland", "switzerland"]
    assert set(ran.rounds[0]["failed"]) == {"hungary", "va"}
    assert reason in ran.rounds[0]["failed"]["hungary"]


def test_sums_travel_instead_of_models(federate: Callable[..., Any]) -> None:
    held: list[tuple[int, bool]] = []

    def look(reply: Message) -> Message:
        if reply.metadata.message_type == "train":
            cohort = Cohort.unpack(reply.content)
            models = sum(len(part.array_records) for part in cohort.parts.values())
            held.append((models, cohort.total is not None))
        return reply

    for strategy, nodes in (("fedavg", 1), ("fedavg", 4), ("fedmedian", 1)):
        federate("rounds=1", "model.hidden=[8]", f"strategy={strategy}", nodes=nodes, tamper=look)
    assert held == [(0, True), *[(1, False)] * 4, (4, False)]


def _silent(client: str) -> Callable[[Message], Message]:
    def tamper(reply: Message) -> Message:
        if reply.metadata.message_type != "train":
            return reply
        return rewrite(
            reply,
            lambda c: Cohort(
                {k: v for k, v in c.parts.items() if k != client}, {client: "broken"}, c.header
            ),
        )

    return tamper


def _weights(ran: Any) -> dict[str, bytes]:
    tensors, _ = checkpoint.load(ran.directory / "model.safetensors")
    return {key: value.tobytes() for key, value in tensors.items()}


@pytest.mark.parametrize("strategy", ["fedavg", "fedmedian", "fedadam"])
def test_nan_does_not_reach_any_strategy(strategy: str, federate: Callable[..., Any]) -> None:
    tamper = spoil("hungary", put(np.full(SHAPE, np.nan, np.float32)))
    ran = federate(*SHORT, f"strategy={strategy}", nodes=4, tamper=tamper)
    tensors, _ = checkpoint.load(ran.directory / "model.safetensors")
    assert all(np.isfinite(value).all() for value in tensors.values())


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

    def cut(reply: Message) -> Message:
        if reply.metadata.message_type == "train" and reply.metadata.group_id == "":
            count = (
                len((directory / "metrics.jsonl").read_text().splitlines())
                if (directory / "metrics.jsonl").exists()
                else 0
            )
            if count == 3:
                raise KeyboardInterrupt
        return reply

    with pytest.raises(KeyboardInterrupt):
        federate(*settings, f"checkpoint_every={every}", tamper=cut, directory=directory)
    assert not (directory / "summary.json").exists()
    resumed = federate(*settings, f"resume={directory}", directory=directory)
    assert _weights(resumed) == _weights(whole)
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
