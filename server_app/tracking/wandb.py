"""Weights & Biases: files beside the run for ``wandb sync``, or online."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conf.digest import plain
from conf.schema import Settings
from server_app.tracking import package


def build(settings: Settings, run_dir: Path) -> WandB:
    """Open a run in the project that the settings name."""
    options = settings.tracking.options
    run_dir.mkdir(parents=True, exist_ok=True)
    run = package("wandb").init(
        project=options["project"], mode=options["mode"], dir=str(run_dir), name=run_dir.name,
        config=plain(settings),
    )  # fmt: skip
    return WandB(run)


class WandB:
    """A run of Weights & Biases'."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def round(self, number: int, values: Mapping[str, float]) -> None:
        """Log a round's figures at its step."""
        self._run.log(dict(values), step=number)

    def summary(self, values: Mapping[str, float]) -> None:
        """Put the chosen model's figures into the summary."""
        self._run.summary.update({f"final/{key}": value for key, value in values.items()})

    def close(self, *, finished: bool) -> None:
        """End the run."""
        self._run.finish(exit_code=0 if finished else 1)
