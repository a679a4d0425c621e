"""Fedproof itself, by the command that users type.

python -m benchmarks.simulation.fedproof W1 --federation flower
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.simulation.worker import arguments, tell
from benchmarks.simulation.workloads import CLASSES, LR, PROCESSES, WORKLOADS, Workload
from server_app.engines.superlink import program

ROOT = Path(__file__).resolve().parent.parent.parent


def overrides(workload: Workload, rounds: int) -> Iterator[str]:
    """Yield the settings: one round more, for the last one evaluates."""
    yield "task=synthetic"
    yield f"model={workload.model}"
    yield f"task.classes={CLASSES}"
    yield f"task.shape={list(workload.shape)}".replace(" ", "")
    yield f"task.clients={workload.clients}"
    yield f"task.rows={workload.rows}"
    yield f"federation.fraction={workload.sampled / workload.clients}"
    yield f"federation.workers={PROCESSES}"
    yield f"train.lr={LR}"
    yield "train.epochs=1"
    yield f"train.batch_size={workload.batch_size}"
    yield from (f"{name}={rounds + 1}" for name in ("rounds", "evaluate_every", "checkpoint_every"))


def main() -> None:
    """Run the command; tell its rounds when it is done."""
    parser = arguments(__doc__)
    parser.add_argument("--federation", choices=["local", "flower"], default="local")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [
            program("fedproof"), *overrides(WORKLOADS[told.workload], told.rounds),
            f"federation={told.federation}", f"hydra.run.dir={run}",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
        if done.returncode:
            sys.exit(done.returncode)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[: told.rounds]:
            row = json.loads(line)
            tell(row["round"], row["seconds"])


if __name__ == "__main__":
    main()
