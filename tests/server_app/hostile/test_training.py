"""Who lies in training is left out by name, and the model is that of the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from server_app.evidence import files
from server_app.evidence.progress import Progress
from server_app.report.page import write_report
from task.wire import Cohort
from tests.conftest import Ran, run_nodes
from tests.server_app.hostile.lies import (
    ANSWERS,
    LIAR,
    NODE,
    SHORT,
    UGLY,
    edited,
    lied,
    silent,
    trap,
    with_header,
)

OTHERS = ["cleveland", "hungary", "switzerland"]


def ugly(cohort: Cohort) -> Cohort:
    """Fail with a text that is meant to do harm where it is shown."""
    return Cohort(errors={LIAR: UGLY}, header=cohort.header)


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run in which the liar says nothing when it is asked to train."""
    return run_nodes(tmp_path_factory.mktemp("without"), *SHORT, nodes=4, tamper=silent("train"))


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run_nodes(tmp_path_factory.mktemp("honest"), *SHORT, nodes=4)


def left_out(ran: Ran, reason: str, without: Ran) -> None:
    """The liar is, with a reason that can be shown; all else is as without it."""
    (line,) = ran.rounds
    assert list(line["failed"]) == [LIAR] and line["answered"] == OTHERS
    assert reason in line["failed"][LIAR]
    assert len(line["failed"][LIAR]) < 500 and line["failed"][LIAR].isprintable()
    assert ran.model == without.model and ran.summary["rounds"] == 1


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_client_answers(name: str, federate: Callable[..., Ran], without: Ran) -> None:
    lie, reason = ANSWERS[name]
    left_out(federate(*SHORT, nodes=4, tamper=lied("train", lie)), reason, without)


def total_of_nobody(values: np.ndarray) -> Callable[[Cohort], Cohort]:
    """Add a sum to a cohort whose clients' own models came along."""
    return lambda cohort: replace(cohort, total=ArrayRecord({"total": Array(values)}))


NODES: dict[str, tuple[Callable[[Cohort], Cohort], str]] = {
    "a sum of nobody": (total_of_nobody(np.full(273, 1e6)), "holds none of its clients"),
    "other settings": (with_header(config="0" * 64), "other config"),
    "other code": (with_header(code=None), "other code"),
    "a refusal of megabytes": (with_header(refused=UGLY), "script"),
    "errors of megabytes": (ugly, "script"),
    "errors of another kind": (
        lambda _: Cohort(errors={LIAR: {"a": [1]}}, header=_.header), "{'a': [1]}"
    ),
    "only another client's answer": (
        lambda cohort: replace(cohort, parts={"hungary": cohort.parts[LIAR]}), "left it out"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_what_a_node_answers(name: str, federate: Callable[..., Ran], without: Ran) -> None:
    edit, reason = NODES[name]
    left_out(federate(*SHORT, nodes=4, tamper=edited("train", edit)), reason, without)


def test_a_sum_that_no_models_have_does_not_end_the_run(federate: Callable[..., Ran]) -> None:
    tamper = edited("train", total_of_nobody(np.full(273, 1e300)), 101)
    (line,) = federate(*SHORT, nodes=2, tamper=tamper).rounds
    assert set(line["failed"]) == {"hungary", "va"}
    assert "larger than any sum of models" in line["failed"]["va"]


def test_answers_for_others_and_fields_that_nobody_asked_for_change_nothing(
    federate: Callable[..., Ran], honest: Ran, tmp_path: Path
) -> None:
    def edit(cohort: Cohort) -> Cohort:
        mine = cohort.parts[LIAR]
        wish = {"overrides": "rounds=99 run_dir=/", "run_dir": str(tmp_path / "x"), "pickle":
                trap(tmp_path / "pwned"), "resume": "../..", "_target_": "os.system"}  # fmt: skip
        mine["wish"] = ConfigRecord(wish)
        parts = {**dict.fromkeys(OTHERS, mine), LIAR: mine, "../../x": mine}
        told = {"overrides": "rounds=99", "run_dir": "/", "shared": 7, "lineage": [], "stack": -1,
                "clock": {UGLY: 1.0, "training": float("inf")}, "rows": {LIAR: 10**9},
                "unsent": {LIAR: 10**4000}, "clients": OTHERS, "train": [0, 0, 0]}  # fmt: skip
        return replace(cohort, parts=parts, header={**cohort.header, **told})

    ran = federate(*SHORT, "profile=true", nodes=4, tamper=edited("train", edit))
    assert ran.model == honest.model and not ran.rounds[0]["failed"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run-1"]
    assert ran.summary["bytes_up"] < 2 * honest.summary["bytes_up"]


def test_what_a_client_says_is_shown_and_not_obeyed(
    federate: Callable[..., Ran], capsys: pytest.CaptureFixture[str]
) -> None:
    ran = federate(*SHORT, nodes=4, tamper=edited("train", ugly))
    with Progress(ran.directory) as show:
        show({"event": "start", "metric": "accuracy", **ran.run_facts, "refused": ["[/red]"]})
        show({"event": "round", **ran.rounds[0]})
        show({"event": "summary", "metric": "accuracy", **ran.summary})
    shown = capsys.readouterr().out
    assert "[/bold]" in shown and "[/red]" in shown and "\x1b" not in shown
    page = write_report(ran.directory).read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page and "\x1b" not in page
    assert len(page) < 500_000 and len((ran.directory / files.METRICS).read_text()) < 5000


def test_two_answers_count_as_none(federate: Callable[..., Ran], without: Ran) -> None:
    def tamper(reply: Message) -> list[Message]:
        mine = (reply.metadata.message_type, reply.metadata.src_node_id) == ("train", NODE)
        return [reply] * (1 + mine)

    left_out(federate(*SHORT, nodes=4, tamper=tamper), "more than once", without)


@pytest.mark.parametrize(
    "claim",
    [(1e-300, 1.0, 2**62), (0.5, 1e-300, 5), (0.5, 2.0, 5), (0.5, 0.1, 0), (0.5, 0.1, 10**18),
     (float("nan"), 0.1, 5), (-1.0, 0.1, 5), (1e300, 0.5, 5), "none"],
)  # fmt: skip
def test_a_cost_that_no_accountant_can_add_up(claim: Any, federate: Callable[..., Ran]) -> None:
    def lie(part: RecordDict) -> None:
        if claim == "none":
            del part["privacy"]
            return
        record = part["privacy"]
        assert isinstance(record, ConfigRecord)
        record["sigma"], record["rate"], record["steps"] = claim

    settings = (*SHORT, "privacy=record_dp", "privacy.sigma=2.0", "train.steps=2")
    (line,) = federate(*settings, nodes=4, tamper=lied("train", lie)).rounds
    assert list(line["failed"]) == [LIAR] and "privacy" in line["failed"][LIAR]
    assert list(line["privacy"]["epsilon"]) == OTHERS


CENTRAL = (
    *SHORT, "privacy=client_dp", "privacy.sigma=1.0", "privacy.delta=0.1", "privacy.noise=tree",
)  # fmt: skip
"""The server noises the sum, and says whom it asked."""


@pytest.mark.parametrize("name", ["NaN", "objects", "nothing", "a million axes"])
def test_updates_whose_norm_the_server_has_to_know(name: str, federate: Callable[..., Ran]) -> None:
    lie, reason = ANSWERS[name]
    (line,) = federate(*CENTRAL, nodes=4, tamper=lied("train", lie)).rounds
    assert list(line["failed"]) == [LIAR] and reason in line["failed"][LIAR]


def test_a_sum_of_clipped_updates_is_no_longer_than_they_can_be(
    federate: Callable[..., Ran],
) -> None:
    tamper = edited("train", total_of_nobody(np.full(273, 10.0)), 101)
    (line,) = federate(*CENTRAL, nodes=2, tamper=tamper).rounds
    assert set(line["failed"]) == {"hungary", "va"}
    assert "longer than the clip allows" in line["failed"]["va"]


def test_json_is_all_that_is_recorded(federate: Callable[..., Ran]) -> None:
    """A line that quotes a client is one line of strict JSON still."""
    ran = federate(*SHORT, nodes=4, tamper=edited("train", ugly))
    (text,) = (ran.directory / files.METRICS).read_text().splitlines()
    json.loads(text, parse_constant=pytest.fail)
