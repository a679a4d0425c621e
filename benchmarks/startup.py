"""Where a second run's time goes, from the command to its first round.

    python -m benchmarks.startup [override ...]

Five runs, between which a bare ``import torch`` is timed; medians are printed and written to
``benchmarks/results/startup.json`` (with ``federation=flower``: ``startup-flower.json``).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.runs import ROOT, write_results
from server_app.engines.superlink import program
from server_app.evidence import files

RUNS = 5
STAGES: dict[str, Callable[[Path], bool]] = {
    "Python, Hydra, settings checked": lambda run: (run / ".hydra" / "overrides.yaml").exists(),
    "torch and Flower imported, workers up, clients known": lambda run: (run / files.RUN).exists(),
    "first round trained and evaluated": lambda run: bool(files.read_lines(run / files.METRICS)),
}


def measure(overrides: Sequence[str]) -> list[float]:
    """Return when each stage of one run is reached, in seconds after the command."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [program("fedproof"), *overrides, f"hydra.run.dir={run}"]
        started, reached = time.monotonic(), []
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            for done in STAGES.values():
                while not done(run):
                    if process.poll() not in (None, 0):
                        sys.exit("the run failed")
                    time.sleep(0.01)
                reached.append(time.monotonic() - started)
        return [*reached, time.monotonic() - started]


def import_torch() -> float:
    """Return the seconds of a process that imports torch and ends."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.monotonic() - started


def main(overrides: Sequence[str]) -> None:
    """Print the stages' medians."""
    torch, runs = [], []
    for _ in range(RUNS):
        torch.append(import_torch())
        runs.append(measure(overrides))
    steps = [[b - a for a, b in zip([0.0, *run], run, strict=False)] for run in runs]
    names = [*STAGES, "the other rounds, tables, workers ended"]
    medians = [statistics.median(column) for column in zip(*steps, strict=True)]
    for name, seconds in zip(names, medians, strict=True):
        print(f"{seconds:6.1f} s  {name}")
    total = statistics.median(run[-1] for run in runs)
    print(f"{total:6.1f} s  whole command")
    first, bare = statistics.median(run[2] for run in runs), statistics.median(torch)
    print(f"{first:6.1f} s  to the end of the first round: {first / bare:.2f} × import torch")
    results = {
        "stages": dict(zip(names, medians, strict=True)),
        "runs": runs,
        "import_torch": torch,
        "first_round": first,
        "first_round_over_import_torch": first / bare,
    }
    engines = [o.partition("=")[2] for o in overrides if o.startswith("federation=")]
    write_results("-".join(["startup", *engines]), results)


if __name__ == "__main__":
    main(sys.argv[1:])
