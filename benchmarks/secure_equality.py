"""Whole runs whose server sees sums only, against those whose server sees all.

    python -m benchmarks.secure_equality [task ...]

Each task with its own settings and all its rounds: in clear, with ``aggregation=secagg``, and with
``aggregation=he``. Prints how far models and held-out metrics are apart, beside the error of one
round's sums that the run tells, and writes ``benchmarks/results/secure_equality.json``.
Training carries what a round's encoding changes through all later rounds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.runs import Outcome, run, write_results

TASKS = ("healthcare", "vision", "keyboard")
PROTECTED = ("secagg", "he")


def apart(clear: Outcome, hidden: Outcome) -> dict[str, Any]:
    """Return how far two runs ended from each other."""
    pairs = ((clear.model[key].double(), hidden.model[key].double()) for key in clear.model)
    held_out, told = clear.summary["held_out"], hidden.summary["held_out"]
    metric = clear.summary["metric"]
    return {
        "metric": metric,
        "in_clear": held_out[metric],
        "hidden": told[metric],
        "weights_apart": max(float((one - other).abs().max()) for one, other in pairs),
        "largest_weight": max(float(value.abs().max()) for value in clear.model.values()),
        "told_error_per_round": hidden.summary["secure"]["error"],
        "seconds": [clear.summary["seconds"], hidden.summary["seconds"]],
    }


def main(tasks: Sequence[str]) -> None:
    """Run and print."""
    results: dict[str, dict[str, Any]] = {}
    for task in tasks:
        clear = run([f"task={task}"])
        for name in PROTECTED:
            facts = apart(clear, run([f"task={task}", f"aggregation={name}"]))
            results.setdefault(task, {})[name] = facts
            print(f"{task} · aggregation={name} ·", facts, flush=True)
    print(write_results("secure_equality", results))


if __name__ == "__main__":
    main(sys.argv[1:] or TASKS)
