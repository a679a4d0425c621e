"""Strategies with a clients' half, and ways of sampling, in whole runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array

from conf.errors import FedproofError
from task.arrays import record_of
from task.wire import VECTORS
from tests.conftest import interrupt
from tests.server_app.test_faults import spoil

SHORT = ("model.hidden=[4]", "train.epochs=1", "federation.min_clients=1")
HALF = (*SHORT, "federation.fraction=0.5")
OURS = ("scaffold", "fednova", "feddyn", "moon", "fedexp", "fedbuff")
SAMPLERS = ("by_size", "power_of_choice", "availability")
RUNS = [f"strategy={name}" for name in OURS] + [f"sampling={name}" for name in SAMPLERS]


@pytest.mark.parametrize(
    "overrides",
    [
        ("sampling=by_size",),
        ("sampling=power_of_choice",),
        ("sampling=availability", "sampling.probability=1"),
    ],
)
def test_neutral_settings_are_fedavg(
    overrides: tuple[str, ...], federate: Callable[..., Any]
) -> None:
    """Whoever draws: when all are asked, they are asked as always; strategies: `test_neutral`."""
    told = (*SHORT, "rounds=2", "train.steps=5", "evaluate_every=9")
    assert federate(*told, *overrides).model == federate(*told).model


@pytest.mark.parametrize("override", RUNS)
def test_neither_nodes_nor_an_interruption_change_the_model(
    override: str, federate: Callable[..., Any], tmp_path: Path
) -> None:
    settings = (*HALF, override, "rounds=4", "evaluate_every=4")
    whole = federate(*settings)
    directory = tmp_path / "interrupted"
    interrupt(federate, directory, *settings, after=2, nodes=2)
    resumed = federate(*settings, f"resume={directory}", directory=directory)
    assert resumed.model == whole.model
    assert resumed.summary["bytes_up"] == whole.summary["bytes_up"]
    sampled = [[line["sampled"] for line in run.rounds] for run in (resumed, whole)]
    assert sampled[0] == sampled[1]


def put(**changed: Any) -> Callable[[Any], None]:
    def change(part: Any) -> None:
        kept = dict(part.get(VECTORS, {})) | {key: Array(v) for key, v in changed.items()}
        part[VECTORS] = record_of(kept)

    return change


def drop(part: Any) -> None:
    del part[VECTORS]


SIZE = 32 * 4 + 4 + 4 + 1


@pytest.mark.parametrize(
    ("strategy", "change", "says"),
    [
        ("scaffold", put(control=np.full(SIZE, np.nan, np.float32)), "'control' holds NaN"),
        ("scaffold", put(control=np.zeros(3, np.float32)), "'control' does not fit the model"),
        ("scaffold", put(control=np.zeros(SIZE)), "'control' does not fit the model"),
        ("scaffold", put(more=np.zeros(SIZE, np.float32)), "'more' beside the model, which nobody"),
        ("scaffold", drop, "does not hold 'control' beside the model, and must"),
        ("fednova", put(control=np.zeros(SIZE, np.float32)), "'control' beside the model, which"),
        (
            "fednova",
            lambda part: part["metrics"].update({"steps": 10**9}),
            "1000000000 local steps",
        ),
        ("fednova", lambda part: part["metrics"].update({"steps": 0}), "it claims 0 local steps"),
    ],
)
def test_what_comes_beside_the_model_is_checked(
    strategy: str, change: Callable[[Any], None], says: str, federate: Callable[..., Any]
) -> None:
    told = (*SHORT, f"strategy={strategy}", "rounds=1")
    ran = federate(*told, tamper=spoil("va", change))
    assert list(ran.rounds[0]["failed"]) == ["va"]
    assert says in ran.rounds[0]["failed"]["va"]


def test_control_variates_are_counted_in_bytes(federate: Callable[..., Any]) -> None:
    settings = (*SHORT, "rounds=2", "evaluate_every=2")
    plain = federate(*settings, "strategy=fedexp").summary
    told = federate(*settings, "strategy=scaffold").summary
    vector = SIZE * 4 + 128
    assert told["bytes_up"] - plain["bytes_up"] == 2 * 4 * vector
    # None has a variate in the first round.
    assert told["bytes_down"] - plain["bytes_down"] == 4 * vector


def test_what_a_client_keeps_is_not_its_momentum(federate: Callable[..., Any]) -> None:
    """With ``train.keep_optimizer=false`` momentum starts anew, whatever else clients keep."""
    told = (*SHORT, "rounds=3", "train.momentum=0.9", "evaluate_every=3")
    assert federate(*told, "strategy=moon", "strategy.mu=0").model == federate(*told).model


def test_dp_sgd_goes_with_control_variates(federate: Callable[..., Any]) -> None:
    private = (*SHORT, "rounds=2", "privacy=record_dp", "privacy.sigma=1.0", "train.steps=2")
    ran = federate(*private, "strategy=scaffold")
    assert ran.summary["privacy"]["unit"] == "record"
    with pytest.raises(FedproofError, match="which aggregation=secagg hides"):
        federate(*SHORT, "rounds=1", "strategy=scaffold", "aggregation=secagg")
