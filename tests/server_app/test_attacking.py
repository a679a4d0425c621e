"""Attacks happen in simulations, to the clients that both sides choose, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from client_app.node import node_of
from client_app.site import site_of
from conf.compose import compose
from conf.errors import FedproofError
from tests.conftest import ROOT

DIGITS = ("task=vision", "model=mlp", "model.hidden=[8]", "rounds=1", "train.epochs=1")


def test_a_node_with_data_of_its_own_refuses(federate: Callable[..., Any]) -> None:
    silo = {"data": str(ROOT / "nowhere.csv"), "partition-id": 0, "num-partitions": 1}
    says = ("does not accept the run's settings", "attack=label_flip is for simulated clients")
    for node, sentence in zip((silo, {}), says, strict=True):
        with pytest.raises(FedproofError, match=sentence):
            federate("attack=label_flip", "rounds=1", nodes=[node])


def test_a_deployment_cannot_be_asked_for_one() -> None:
    with pytest.raises(FedproofError, match="attack=alie is for simulations"):
        compose(("attack=alie", "federation=remote", "federation.superlink=silos"))


def test_both_sides_choose_the_same_attackers(federate: Callable[..., Any]) -> None:
    ran = federate(*DIGITS, "attack=label_flip", nodes=2)
    poisoned = set()
    for context in ran.grid._contexts.values():
        node = node_of(site_of(context))
        learner = node.learner({})
        for client in node.source.clients:
            clean = node.source.data(client, {}).train
            if not torch.equal(clean.y, learner.data(client).train.y):
                poisoned.add(client)
            assert torch.equal(node.source.data(client, {}).test.y, learner.data(client).test.y)
    assert sorted(poisoned) == ran.run_facts["attackers"]
    assert len(poisoned) == 2


@pytest.mark.parametrize("attack", ["not_a_number", "weight_inflation"])
def test_what_validation_catches_is_named(attack: str, federate: Callable[..., Any]) -> None:
    ran = federate(*DIGITS, f"attack={attack}")
    assert sorted(ran.rounds[0]["failed"]) == ran.run_facts["attackers"]


def test_a_lie_at_joining_is_not_contradicted_but_can_be_capped(
    federate: Callable[..., Any],
) -> None:
    ran = federate(*DIGITS, "attack=weight_lie", "defence=weight_cap")
    assert not ran.rounds[0]["failed"]
    assert ran.rounds[0]["defence"]["capped"] == ran.run_facts["attackers"]


def test_backdoor_success_is_measured(federate: Callable[..., Any]) -> None:
    settings = (*DIGITS[:2], "model.hidden=[32]", "rounds=3", "attack=backdoor")
    open_door = federate(*settings).rounds[-1]["backdoor_success"]
    shut = federate(*settings, "strategy=fedmedian", "defence=nnm").rounds[-1]["backdoor_success"]
    assert open_door > 0.8
    assert shut < 0.2
    assert "backdoor_success" not in federate(*DIGITS).rounds[-1]


def test_an_attack_does_not_depend_on_the_nodes(federate: Callable[..., Any]) -> None:
    settings = (*DIGITS, "attack=gaussian", "strategy=geometric_median")
    assert federate(*settings).model == federate(*settings, nodes=3).model
