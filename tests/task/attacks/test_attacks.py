"""Attacks do what their papers say, to whom the seed says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conf.compose import compose
from conf.errors import FedproofError
from task.attacks import attack_of, attackers_among
from task.attacks.alie import largest_z
from task.attacks.base import Attack
from task.base import Examples

CLIENTS = [f"client-{i}" for i in range(10)]


def build(*overrides: str) -> Attack:
    attack = attack_of(compose(overrides))
    assert attack is not None
    return attack


def updates(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 30, generator=torch.Generator().manual_seed(seed))


def craft(attack: Attack, own: Tensor, honest: Tensor) -> Tensor:
    return attack.craft(own, honest, torch.Generator().manual_seed(1))


def test_attackers_are_seeded_and_as_many_as_asked() -> None:
    attack = build("attack=sign_flip", "attack.fraction=0.3")
    chosen = attackers_among(CLIENTS, attack, 1)
    assert len(chosen) == 3
    assert chosen == attackers_among(reversed(CLIENTS), attack, 1)
    others = {attackers_among(CLIENTS, attack, seed) for seed in range(20)}
    assert len(others) > 10
    assert attack_of(compose(())) is None


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("attack=sign_flip", "attack.scale=2"), lambda own, honest: -2 * own),
        (("attack=zero",), lambda own, honest: 0 * own),
        (("attack=huge",), lambda own, honest: torch.full_like(own, 1e10)),
        (("attack=backdoor", "attack.boost=4"), lambda own, honest: 4 * own),
        (("attack=ipm", "attack.epsilon=0.5"), lambda own, honest: -0.5 * honest.mean(0)),
        (
            ("attack=alie", "attack.z=1"),
            lambda own, honest: honest.mean(0) - honest.std(0, unbiased=True),
        ),
        (("attack=label_flip",), lambda own, honest: own),
    ],
)
def test_what_is_sent(overrides: tuple[str, ...], expected: Any) -> None:
    own, honest = updates(2), updates(8, 2)
    found = craft(build(*overrides), own, honest)
    torch.testing.assert_close(found, expected(own, honest).expand_as(own))


def test_ipm_and_alie_equal_byzfl() -> None:
    byzfl = pytest.importorskip("byzfl")
    honest = updates(8).double()
    found = craft(build("attack=ipm", "attack.epsilon=2"), honest[:1], honest)[0]
    np.testing.assert_allclose(
        found, byzfl.InnerProductManipulation(tau=2.0)(honest.numpy()), rtol=1e-9
    )
    # ByzFL shifts up, this down.
    up = byzfl.ALittleIsEnough(tau=1.5)(honest.numpy())
    found = craft(build("attack=alie"), honest[:1], honest)[0]
    np.testing.assert_allclose(2 * honest.mean(0) - found, up, rtol=1e-9)


def test_no_number_is_sent() -> None:
    assert craft(build("attack=not_a_number"), updates(1), updates(3)).isnan().all()


def test_z_of_the_paper() -> None:
    # Baruch et al. 2019, their experiment: 50 workers, 24 of them corrupted.
    assert largest_z(50, 24) == pytest.approx(1.43, abs=0.02)
    assert largest_z(10, 2) == 0


@pytest.mark.parametrize("direction", ["std", "mean", "sign"])
def test_min_max_and_min_sum_go_just_as_far_as_they_may(direction: str) -> None:
    honest = updates(8).double()
    distances = torch.cdist(honest, honest)
    forged = craft(build("attack=min_max", f"attack.direction={direction}"), honest[:2], honest)
    farthest = (forged[0] - honest).norm(dim=1).max()
    assert farthest.item() == pytest.approx(distances.max().item(), rel=1e-6)
    forged = craft(build("attack=min_sum", f"attack.direction={direction}"), honest[:2], honest)
    whole = (forged[1] - honest).square().sum()
    assert whole.item() == pytest.approx(distances.square().sum(1).max().item(), rel=1e-6)


@pytest.mark.parametrize("name", ["alie", "ipm", "min_max", "min_sum"])
def test_attackers_among_themselves_know_each_other(name: str) -> None:
    own = updates(2)
    assert craft(build(f"attack={name}"), own, own[:0]).isfinite().all()
    assert craft(build(f"attack={name}"), own[:1], own[:0]).isfinite().all()


def test_weights() -> None:
    assert build("attack=weight_inflation").claim(7, 7) == 10**9
    assert build("attack=weight_lie").claim(7, 10**7) == 10**7
    assert build("attack=weight_lie").joins_with(7) == 10**9
    assert build("attack=sign_flip").claim(7, 9) == 7


def test_labels_are_turned() -> None:
    attack, generator = build("attack=label_flip"), torch.Generator()
    rows = Examples(torch.zeros(3, 2), torch.tensor([0, 3, 9]))
    assert attack.poison(rows, 10, generator).y.tolist() == [9, 6, 0]
    binary = Examples(torch.zeros(2, 2), torch.tensor([0.0, 1.0]))
    assert attack.poison(binary, 1, generator).y.tolist() == [1.0, 0.0]
    numbers = Examples(torch.zeros(2, 2), torch.tensor([0.3, 7.0]))
    with pytest.raises(FedproofError, match="one class per row"):
        attack.poison(numbers, 1, generator)


def test_the_trigger() -> None:
    attack = build("attack=backdoor", "attack.share=1", "attack.target=3")
    images = Examples(torch.zeros(4, 1, 5, 5), torch.tensor([3, 1, 2, 3]))
    marked = attack.poison(images, 10, torch.Generator())
    assert marked.y.tolist() == [3] * 4
    assert marked.x.sum(dim=(1, 2, 3)).tolist() == [8.0] * 4
    assert marked.x[0, 0, -2:, -2:].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    others = attack.trigger(images, 10)
    assert others is not None
    assert len(others) == 2
    assert not images.x.any()
    part = build("attack=backdoor").poison(
        Examples(torch.zeros(200, 6), torch.ones(200).long()), 2, torch.Generator()
    )
    assert 60 < int((part.y == 0).sum()) < 140
    with pytest.raises(FedproofError, match="no class of this task"):
        attack.poison(images, 3, torch.Generator())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("attack=gaussian", "attack.std=0"), "attack.std must be positive"),
        (("attack=label_flip", "attack.fraction=1"), "attack.fraction must lie"),
        (("attack=min_max", "attack.direction=up"), "attack.direction must be one of"),
        (("attack=weight_lie", "attack.examples=0"), "attack.examples must be at least 1"),
    ],
)
def test_options_out_of_range(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(FedproofError, match=message):
        attack_of(compose(overrides))
