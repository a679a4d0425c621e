"""No further tracker: TensorBoard's files are always written."""

from __future__ import annotations

from pathlib import Path

from conf.schema import Settings


def build(settings: Settings, run_dir: Path) -> None:
    """Return no tracker."""
