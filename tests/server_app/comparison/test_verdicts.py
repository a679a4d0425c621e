"""Verdicts on real federations, homogeneous and not, with much data and little."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from conf.compose import compose
from conf.schema import Settings
from server_app.comparison.runner import run_comparison
from server_app.comparison.summary import summarize
from task.attacks import attack_of, attackers_among

SYNTHETIC = (
    "task=synthetic", "task.clients=8", "task.shape=[8]", "task.classes=4", "task.test_rows=400",
    "federation.fraction=1.0", "federation.fraction_evaluate=1.0", "baselines.centralised=false",
    "rounds=4", "train.lr=0.3", "train.batch_size=100",
)  # fmt: skip


def test_a_client_with_wrong_labels_is_flagged_by_name(
    federate: Callable[..., Any], tmp_path: Path
) -> None:
    flipped = ("attack=label_flip", "attack.fraction=0.125", "task.rows=300", "compare=true")
    federate(*SYNTHETIC, *flipped, directory=tmp_path)
    settings = compose((*SYNTHETIC, *flipped))
    attack = attack_of(settings)
    assert attack is not None
    told = summarize(tmp_path)
    assert told is not None
    attackers = attackers_among([c["client"] for c in told["clients"]], attack, settings.seed)
    warned = {c["client"]: c["warning"] for c in told["clients"] if c["warning"]}
    assert set(warned) == attackers and len(attackers) == 1
    assert "leads away from everybody's: check its labels" in next(iter(warned.values()))


@pytest.mark.parametrize(
    ("rows", "decisions"),
    [(3000, {"not worth it"}), (24, {"federate", "federate, but not for everybody"})],
)
def test_clients_who_are_alike(
    rows: int, decisions: set[str], federate: Callable[..., Any], tmp_path: Path
) -> None:
    def train(settings: Settings, overrides: Sequence[str], directory: Path) -> None:
        federate(*overrides, directory=directory)

    overrides = ["compare=true", "seeds=3", *SYNTHETIC, f"task.rows={rows}"]
    run_comparison(compose(tuple(overrides)), overrides, tmp_path, train)
    told = summarize(tmp_path)
    assert told is not None
    assert told["decision"] in decisions, told["sentence"]
