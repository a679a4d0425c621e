"""A lying ServerApp, against real ClientApps of silos that know each other: one sum of a round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord

import server_app.phases
from benchmarks.data import hospitals
from server_app.secure.collected import Collected, Purpose
from server_app.secure.training import SecureTraining
from task.identity import Identity
from tests.server_app.secure.runs import SHORT

LEFT_OUT = "va"
LIES: dict[str, Callable[[int], tuple[str, int]]] = {
    "another word for it": lambda number: ("train ", number),
    "the same again": lambda number: ("train", number),
    "a round before it": lambda number: ("train", number - 1),
    "a round after it": lambda number: ("train", number + 1),
}
"""What the server calls a second sum of a round, over all clients but one, of the same model."""


@pytest.fixture
def silos(tmp_path: Path) -> list[dict[str, Any]]:
    """Four hospitals' node configs, with keys and a roster."""
    found, lines = [], []
    for path in hospitals.main(tmp_path / "data"):
        name, key = path.name.split(".")[1], Identity()
        key.write(tmp_path / f"{name}.key")
        lines.append(f"{key.public.hex()} {name}\n")
        places = {"identity": f"{name}.key", "state": f"{name}.state", "ledger": f"{name}.ledger"}
        config = {key: str(tmp_path / place) for key, place in places.items()}
        found.append({**config, "data": str(path), "roster": str(tmp_path / "roster")})
    (tmp_path / "roster").write_text("".join(lines))
    return found


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("aggregation", ["secagg", "he"])
def test_a_second_sum_of_a_round_is_over_nobody(
    lie: str,
    aggregation: str,
    federate: Callable[..., Any],
    silos: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if aggregation == "he":
        pytest.importorskip("tenseal")
        if lie == "a round after it":
            pytest.skip("with aggregation=he clients do not see which vectors a sum holds")
    second: list[Collected] = []

    class Lying(SecureTraining):
        def run(self, strategy: Any, number: int, arrays: Any, timeout: float) -> Any:
            answer = super().run(strategy, number, arrays, timeout)
            cohort = list(self._grid.cohort)
            self._grid.cohort = [client for client in cohort if client != LEFT_OUT]
            purpose, claimed = LIES[lie](number)
            config = ConfigRecord({"server-round": claimed})
            _, messages = self._configure(strategy, claimed, arrays, config)
            told = Purpose(purpose, claimed, tuple(self._grid.cohort))
            hides = self._hides(arrays)
            second.append(self._collector.collect(told, messages, timeout, lambda: None, hides))
            self._grid.cohort = cohort
            return answer

    monkeypatch.setattr(server_app.phases, "SecureTraining", Lying)
    settings = (*SHORT, "rounds=1", f"aggregation={aggregation}")
    run = federate(*settings, nodes=silos)
    assert run.rounds[0]["secure"]["sums"] == [4]
    (collected,) = second
    assert collected.sums == [] and collected.answers == {} and collected.abandoned
