"""Defences change what strategies see, tell of it, and are refused where nobody sees updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from conf.compose import compose
from conf.errors import FedproofError
from server_app.defences.base import Stack
from server_app.defending import defences_of

SHORT = ("rounds=2", "model.hidden=[8]")
UPDATES = torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 2.0], [30.0, 40.0]])
STACK = Stack(UPDATES, (5, 100, 7, 6), ((0,), (1,), (2,), (3,)))


def apply(*overrides: str) -> tuple[Stack, dict[str, list[int]]]:
    stack, told = STACK, {}
    for defence in defences_of(compose(overrides)):
        stack, done = defence.apply(stack, 1)
        told |= done
    return stack, told


def test_clipping_names_who_was_too_long() -> None:
    stack, told = apply("defence=norm_clip", "defence.limit=5")
    assert stack.updates.norm(dim=1).tolist() == pytest.approx([5, 1, 2, 5])
    assert told == {"clipped": [3]}


def test_weights_are_capped() -> None:
    stack, told = apply("defence=weight_cap", "defence.factor=2")
    assert stack.weights == (5, 12, 7, 6)
    assert told == {"capped": [1]}


def test_buckets_hold_whose_answers_they_say() -> None:
    stack, _ = apply("defence=bucketing")
    assert sorted(i for row in stack.members for i in row) == [0, 1, 2, 3]
    for update, weight, members in zip(stack.updates, stack.weights, stack.members, strict=True):
        torch.testing.assert_close(update, UPDATES[list(members)].mean(0))
        assert weight == sum(STACK.weights[i] for i in members)


def test_defences_follow_each_other() -> None:
    stack, told = apply("defence=norm_clip", "defence.then=[weight_cap,bucketing]")
    assert len(stack.updates) == 2
    assert set(told) == {"clipped", "capped"}
    assert told["clipped"] == [0, 3]
    with pytest.raises(FedproofError, match="no 'moat' in defences"):
        defences_of(compose(("defence=norm_clip", "defence.then=[moat]")))


@pytest.mark.parametrize(
    "neutral",
    [
        ("defence=norm_clip", "defence.limit=1e9"),
        ("defence=weight_cap", "defence.factor=1000"),
        ("defence=bucketing", "defence.size=1"),
        ("defence=nnm", "defence.malicious=3"),
    ],
)
def test_a_defence_with_nothing_to_do_changes_no_bit(
    neutral: tuple[str, ...], federate: Callable[..., Any]
) -> None:
    # Four clients mixed with themselves alone are as they were.
    plain = federate(*SHORT, "strategy=fedmedian")
    assert federate(*SHORT, "strategy=fedmedian", *neutral).model == plain.model


def test_evidence_tells_what_was_done_to_whom(federate: Callable[..., Any]) -> None:
    ran = federate(
        *SHORT, "attack=sign_flip", "attack.fraction=0.25", "attack.scale=50", "strategy=multikrum",
        "strategy.malicious=0", "strategy.select=3", "defence=norm_clip", "defence.limit=100",
    )  # fmt: skip
    (liar,) = ran.run_facts["attackers"]
    for line in ran.rounds:
        assert max(line["anomaly"], key=line["anomaly"].get) == liar
        assert line["anomaly"][liar] > 3.5
        assert line["defence"]["excluded"] == [liar]
    summed = federate(*SHORT)
    assert "anomaly" not in summed.rounds[0]


def test_centered_clipping_resumes_at_its_centre(federate: Callable[..., Any], tmp_path) -> None:  # type: ignore[no-untyped-def]
    settings = ("model.hidden=[8]", "strategy=centered_clipping")
    whole = federate(*settings, "rounds=4")
    directory = tmp_path / "cut"
    federate(*settings, "rounds=2", directory=directory)
    resumed = federate(*settings, "rounds=4", f"resume={directory}", directory=directory)
    assert resumed.model == whole.model


SECRET = ("aggregation=secagg", "rounds=1", "model.hidden=[8]")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((*SECRET, "defence=norm_clip"), "defence=norm_clip looks at each update.*groups"),
        ((*SECRET, "strategy=fltrust"), "strategy=fltrust looks at what each client answers"),
        (("defence=nnm", "privacy=client_dp", "privacy.sigma=1"), "after they were"),
        ((*SECRET, "attack=sign_flip"), "attack=sign_flip is played where single answers"),
        (
            ("strategy=krum", "strategy.malicious=2", "rounds=1"),
            "needs more valid answers than there were",
        ),
        (("defence=norm_clip", "defence.limit=0"), "defence.limit must be positive"),
        (("defence=nnm", "defence.malicious=-1"), "defence.malicious must be at least 0"),
    ],
)
def test_what_does_not_go_together(
    overrides: tuple[str, ...], message: str, federate: Callable[..., Any]
) -> None:
    with pytest.raises(FedproofError, match=message):
        federate(*overrides)


def test_fltrust_needs_rows_of_its_own_in_a_deployment() -> None:
    from server_app.strategies.fltrust import build

    remote = ("strategy=fltrust", "federation=remote", "federation.superlink=silos")
    settings = compose(remote)
    with pytest.raises(FedproofError, match="needs strategy.path=FILE"):
        build(settings.strategy.options).inform(settings)
