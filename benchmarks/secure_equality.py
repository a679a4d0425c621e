"""Whole runs whose server sees sums only, against those whose server sees all.

    python -m benchmarks.secure_equality [task ...]

Each task with its own settings, for one round and for all: in clear, with ``aggregation=secagg``,
and with ``aggregation=he``. Prints how far models are apart, beside the error of a round's sums
that the run tells, and held-out metrics after all rounds; writes them to
``benchmarks/results/secure_equality.json``, where those of other tasks stay. After one round single
precision adds its rounding to the encoding's; later rounds train on from there, and networks carry
the least difference far.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.runs import ROOT, Outcome, run, write_results

TASKS = ("healthcare", "vision", "keyboard")
PROTECTED = {"secagg": (), "he": ("aggregation.max_clients=128",)}
"""Keyboard's 128 people all test."""


def apart(clear: Outcome, hidden: Outcome) -> float:
    """Return how far two models are from each other."""
    pairs = ((clear.model[key].double(), hidden.model[key].double()) for key in clear.model)
    return max(float((one - other).abs().max()) for one, other in pairs)


def main(tasks: Sequence[str]) -> None:
    """Run and print."""
    path = ROOT / "benchmarks" / "results" / "secure_equality.json"
    results: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for task in tasks:
        short, whole = ([f"task={task}", "rounds=1"], [f"task={task}"])
        clear, clear_end = run(short), run(whole)
        metric = clear.summary["metric"]
        for name, more in PROTECTED.items():
            told = (f"aggregation={name}", *more)
            hidden, hidden_end = (run([*settings, *told]) for settings in (short, whole))
            results.setdefault(task, {})[name] = facts = {
                "error_told": hidden.summary["secure"]["error"],
                "apart_after_one_round": apart(clear, hidden),
                "apart_at_the_end": apart(clear_end, hidden_end),
                "metric": metric,
                "in_clear": clear_end.summary["held_out"][metric],
                "hidden": hidden_end.summary["held_out"][metric],
                "seconds": [clear_end.summary["seconds"], hidden_end.summary["seconds"]],
            }
            print(f"{task} · aggregation={name} ·", facts, flush=True)
        print(write_results("secure_equality", results))


if __name__ == "__main__":
    main(sys.argv[1:] or TASKS)
