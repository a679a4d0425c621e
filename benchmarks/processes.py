"""Run the command as a user does, and watch its rounds and its memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.runs import ROOT
from benchmarks.simulation.memory import PeakMemory
from server_app.engines.superlink import program
from server_app.evidence import files


@dataclass(frozen=True)
class Measured:
    """What a run of the command took."""

    rounds: list[dict[str, Any]]
    peak_pss: int


def measure(overrides: Sequence[str]) -> Measured:
    """Run ``fedproof`` with `overrides`; return its rounds and its peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [program("fedproof"), *overrides, f"hydra.run.dir={run}"]
        with (
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process,
            PeakMemory(process.pid) as memory,
        ):
            if process.wait():
                sys.exit(f"failed: {' '.join(command)}")
        return Measured(files.read_lines(run / files.METRICS), memory.peak)
