"""Seeds of a comparison, one after the other; what is finished is not done again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from conf.compose import compose
from conf.schema import Settings
from server_app.comparison.runner import parts_of, run_comparison
from server_app.comparison.show import compare
from server_app.comparison.summary import summarize
from server_app.evidence import files
from server_app.report.page import write_report

SHORT = ("compare=true", "seeds=2", "seed=7", "rounds=2", "model.hidden=[4]", "train.epochs=1")


def told(*overrides: str) -> tuple[Settings, list[str]]:
    return compose(overrides), list(overrides)


def test_five_seeds_by_default(tmp_path: Path) -> None:
    parts = list(parts_of(*told("compare=true"), tmp_path))
    assert [part.directory.name for part in parts] == [f"seed-{s}" for s in range(42, 47)]
    assert parts[1].overrides == ("compare=true", "seed=43")


def test_a_private_run_is_repeated_without_privacy(tmp_path: Path) -> None:
    private = ("compare=true", "seeds=1", "privacy=record_dp", "privacy.sigma=1.0", "rounds=2")
    protected, bare = parts_of(*told(*private), tmp_path)
    assert "privacy=record_dp" in protected.overrides
    assert bare.directory.name == "seed-42-unprotected"
    assert bare.overrides == ("rounds=2", "seed=42", "privacy=none")
    assert len(list(parts_of(*told(*private, "baselines.unprotected=false"), tmp_path))) == 1


def test_seeds_become_a_verdict_and_are_not_done_again(
    federate: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def train(settings: Settings, overrides: Sequence[str], directory: Path) -> None:
        ran.append(directory.name)
        if len(ran) == 2:
            raise KeyboardInterrupt
        federate(*overrides, directory=directory)

    with pytest.raises(KeyboardInterrupt):
        compare(*told(*SHORT), tmp_path, train)
    first = summarize(tmp_path)
    assert first is not None and first["seeds"] == 1
    compare(*told(*SHORT, f"resume='{tmp_path}'"), tmp_path, train)
    assert ran == ["seed-7", "seed-8", "seed-8"]
    comparison = files.read_json(tmp_path / files.COMPARISON)
    assert comparison["seeds"] == 2 and len(comparison["clients"]) == 4
    assert comparison["sentence"][:20].lower() in capsys.readouterr().out.lower()
    page = write_report(tmp_path).read_text()
    assert "2 seeds" in page and "uv run fedproof compare=true seeds=2 seed=7" in page


def test_the_price_of_privacy_is_measured(federate: Callable[..., Any], tmp_path: Path) -> None:
    private = ("privacy=record_dp", "privacy.sigma=4.0", "baselines.centralised=false")

    def train(settings: Settings, overrides: Sequence[str], directory: Path) -> None:
        federate(*overrides, directory=directory)

    run_comparison(*told(*SHORT, *private), tmp_path, train)
    comparison = summarize(tmp_path)
    assert comparison is not None
    assert comparison["price_of_privacy"] is not None and comparison["seeds"] == 2
    assert set(comparison["models"]) == {"federated", "local", "unprotected"}
    assert "privacy costs" in comparison["sentence"]
    assert summarize(tmp_path / "seed-7-unprotected") is None
