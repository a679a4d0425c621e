"""Seconds and memory of a DP-SGD step, against plain SGD and Opacus' hooks (W3).

``noise`` is what sampling, noise and the optimiser take of it: a step without any gradients.

    python -m benchmarks.dp [--steps N] [--passes N]

One client's step with a batch of 64 on the CNN of W1 and on LeNet, one thread. Contenders take
turns, each in a process of its own; prints a table and writes ``benchmarks/results/dp.json``.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "dp.json"
CONTENDERS = ("plain", "fedproof", "noise", "opacus")
WORKLOADS = ("W1", "W2")
BATCH = 64
_TIMED = 3


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dp")
    parser.add_argument("--steps", type=int, default=10, help="of a training; default: %(default)s")
    parser.add_argument("--passes", type=int, default=3, help="runs of each; default: %(default)s")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def run(contender: str, workload: str, steps: int) -> None:
    """Time trainings of `steps` steps in this process, after one that is not timed.

    Prints seconds per step, and by how much memory grew beyond what libraries and data take.
    """
    import opacus.validators  # noqa: F401
    import torch

    from benchmarks.simulation.work import build
    from benchmarks.simulation.workloads import CLASSES, WORKLOADS
    from conf.schema import TrainConfig
    from task.base import Examples
    from task.flat import FlatModel
    from task.objectives import MultiClass
    from task.privacy import clipping, dpsgd
    from task.training import train

    torch.set_num_threads(1)
    told = WORKLOADS[workload]
    model = FlatModel(build(told))
    rows = Examples(torch.randn(BATCH, *told.shape), torch.randint(CLASSES, (BATCH,)))
    config = TrainConfig(steps=steps, batch_size=BATCH, lr=0.01)
    mechanism = dpsgd.Mechanism(1.0, 1.0, False, 1.0, steps)
    if contender == "opacus":
        dpsgd.clipper_for = lambda *_: clipping.add_clipped_by_opacus
    elif contender == "noise":
        dpsgd.clipper_for = lambda *_: lambda *_: None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for seed in range(1 + _TIMED):
        started = time.perf_counter()
        if contender == "plain":
            train(model, rows, MultiClass(CLASSES), config, seed=seed)
        else:
            dpsgd.train_privately(model, rows, MultiClass(CLASSES), config, mechanism, seed=seed)
        seconds.append((time.perf_counter() - started) / steps)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds[1:], "mb": (after - before) / 1024}))


def measured(contender: str, workload: str, steps: int) -> dict[str, Any]:
    """Run a contender in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.dp", "--steps", str(steps)]
    done = subprocess.run(
        [*command, "--run", contender, workload], check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Run all, and report."""
    told = arguments()
    if told.run:
        run(*told.run, told.steps)
        return
    results: dict[str, Any] = {}
    for workload in WORKLOADS:
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
        for _ in range(told.passes):
            for name in CONTENDERS:
                runs[name].append(measured(name, workload, told.steps))
        facts = {
            name: {
                "seconds": statistics.median(s for r in all_ for s in r["seconds"]),
                "mb": max(r["mb"] for r in all_),
            }
            for name, all_ in runs.items()
        }
        for name, fact in facts.items():
            fact["times_plain"] = fact["seconds"] / facts["plain"]["seconds"]
            fact["times_memory"] = fact["mb"] / facts["plain"]["mb"]
            print(
                f"{workload} {name}: {1000 * fact['seconds']:.1f} ms a step, "
                f"{fact['times_plain']:.2f} × plain, {fact['mb']:.0f} MB, "
                f"{fact['times_memory']:.2f} × plain"
            )
        results[workload] = facts
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
