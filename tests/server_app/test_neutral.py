"""With settings that take out what is special about it, every strategy of the tree is FedAvg."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from conf.compose import CONFIG_DIR
from server_app.evidence import files
from tests.conftest import Ran, run_nodes

SHORT = ("train.steps=5", "evaluate_every=9")
HOSPITALS = (*SHORT, "model.hidden=[4]")
ALIKE = (
    *SHORT, "task=synthetic", "task.shape=[6]", "task.classes=3", "task.clients=6", "task.rows=12",
    "train.lr=0.1", "rounds=2", "federation.fraction=1",
)  # fmt: skip
"""As many rows at each client, for what lets clients count alike."""
EVERYBODY = ("strategy.buffer=4", "strategy.concurrency=4")
REAL = ("strategy.clock=real", "federation=flower")
EXACT: list[tuple[int, str, tuple[str, ...]]] = [
    (2, "fedavg", ()),
    (2, "fedprox", ("strategy.proximal_mu=0",)),
    (2, "fedavgm", ("strategy.server_momentum=0", "strategy.server_learning_rate=1")),
    (1, "scaffold", ()),
    (2, "fednova", ()),
    (2, "moon", ("strategy.mu=0",)),
    (2, "fedexp", ("strategy.epsilon=1e9",)),
    (2, "fedbuff", EVERYBODY),
    (2, "fedbuff", (*EVERYBODY, *REAL)),
]
FLAT = ("strategy.tau=1e6", "strategy.eta=1e6")
"""Adaptive steps of ``eta Δ / (|Δ| + tau)``: those of Δ itself, so far as float32 tells."""
CLOSE: dict[str, tuple[str, ...]] = {
    "fedadagrad": FLAT,
    "fedadam": (*FLAT, "strategy.beta_1=0", "strategy.bias_correction=false"),
    "fedyogi": (*FLAT, "strategy.beta_1=0"),
    "qfedavg": ("strategy.q=0",),
    "fedtrimmedavg": ("strategy.beta=0",),
    "multikrum": ("strategy.malicious=0",),
    "bulyan": ("strategy.malicious=0",),
    "geometric_median": ("strategy.smoothing=1e6",),
    "centered_clipping": ("strategy.radius=1e6",),
}
WITHOUT = {
    "feddyn": "goes further than the mean by all moves so far, whatever alpha",
    "fedmedian": "of more than two values is no mean",
    "krum": "takes one update",
    "flame": "clips to the median norm",
    "fltrust": "weighs by the cosine to the server's own update",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ran]:
    """FedAvg with some settings, run once for all who ask for the same."""
    return cache(lambda *told: run_nodes(tmp_path_factory.mktemp("plain"), *told))


def test_no_strategy_is_forgotten() -> None:
    tree = {path.stem for path in (CONFIG_DIR / "strategy").glob("*.yaml")}
    assert {name for _, name, _ in EXACT} | set(CLOSE) | set(WITHOUT) == tree


@pytest.mark.parametrize(("rounds", "name", "told"), EXACT)
def test_it_is_fedavg_to_the_last_bit(
    rounds: int,
    name: str,
    told: tuple[str, ...],
    federate: Callable[..., Any],
    plain: Callable[..., Ran],
) -> None:
    settings = (*HOSPITALS, f"rounds={rounds}")
    ran = federate(*settings, f"strategy={name}", *told)
    assert ran.model == plain(*settings).model


@pytest.mark.parametrize("name", CLOSE)
def test_it_is_fedavg_but_for_rounding(
    name: str, federate: Callable[..., Any], plain: Callable[..., Ran]
) -> None:
    def values(ran: Ran) -> Any:
        state = load_file(ran.directory / files.MODEL)
        return np.concatenate([state[key].reshape(-1) for key in sorted(state)])

    mean = values(plain(*ALIKE))
    ran = federate(*ALIKE, f"strategy={name}", *CLOSE[name])
    assert values(ran) == pytest.approx(mean, abs=2e-6)
    assert np.abs(mean - values(plain(*ALIKE, "train.lr=1e-30"))).max() > 1e-2


@pytest.mark.parametrize("name", WITHOUT)
def test_others_are_not(name: str, federate: Callable[..., Any], plain: Callable[..., Ran]) -> None:
    ran = federate(*HOSPITALS, "rounds=1", f"strategy={name}")
    assert ran.model != plain(*HOSPITALS, "rounds=1").model
