"""Run a contender's program once: the seconds of its rounds, the memory of its processes."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.simulation.memory import PeakMemory
from conf.errors import FedproofError
from server_app.engines.superlink import end_tree

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Run:
    """Seconds of each timed round, and bytes at the peak."""

    seconds: list[float]
    peak: int


def measure(command: Sequence[str], rounds: int, timeout: float) -> Run:
    """Run a program that tells `rounds` rounds, of which the first is not timed.

    Raises
    ------
    FedproofError
        If it tells fewer within `timeout` seconds.
    """
    with tempfile.TemporaryFile("w+") as errors:
        with _process(command, errors, timeout) as process, PeakMemory(process.pid) as memory:
            seconds = list(_rounds(process))
        if len(seconds) != rounds:
            reason = _last(errors)
            raise FedproofError(f"it ended after {len(seconds)} of {rounds} rounds: {reason}")
    return Run(seconds[1:], memory.peak)


def _rounds(process: subprocess.Popen[str]) -> Iterator[float]:
    """Yield the rounds that a program tells, among whatever else it prints."""
    assert process.stdout is not None
    for line in process.stdout:
        with suppress(ValueError, KeyError, TypeError):
            yield float(json.loads(line)["seconds"])


@contextmanager
def _process(
    command: Sequence[str], errors: IO[str], timeout: float
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=errors, start_new_session=True,
    )  # fmt: skip
    # Its end closes the pipe that is being read.
    alarm = threading.Timer(timeout, end_tree, [process.pid])
    alarm.start()
    try:
        yield process
    finally:
        alarm.cancel()
        end_tree(process.pid)
        process.wait()


def _last(errors: IO[str]) -> str:
    errors.seek(0)
    lines = [line.strip() for line in errors if line.strip()]
    return lines[-1] if lines else "it said nothing."
