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

SYNTHETIC = (
    "task=synthetic", "task.clients=8", "task.shape=[8]", "task.classes=4", "task.test_rows=400",
    "federation.fraction=1.0", "federation.fraction_evaluate=1.0", "baselines.centralised=false",
    "rounds=4", "train.lr=0.3", "train.batch_size=100",
)  # fmt: skip


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
