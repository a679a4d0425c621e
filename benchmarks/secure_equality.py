"""Whole runs whose server sees sums only, against those whose server sees all.

    python -m benchmarks.secure_equality [task ...]

Each task with its own settings, for one round and for all: in clear, with ``aggregation=secagg``,
and with ``aggregation=he``. Prints how far models are apart, beside the error of a round's sums
that the run tells, and held-out metrics after all rounds; writes them to
``benchmarks/results/secure_equality.json``, where those of other tasks stay. After one round single
precision adds its rounding to the encoding's; later rounds train on from there, and networks carry
the least difference far. How far is what the control shows: runs in clear, whose models are moved
after the first round by random numbers no larger than secure sums moved them.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runs import Outcome, read_results, run, run_in, write_results
from conf.compose import compose, quote
from server_app import checkpoint

TASKS = ("healthcare", "vision", "keyboard")
PROTECTED = {"secagg": (), "he": ("aggregation.max_clients=128",)}
"""Keyboard's 128 people all test."""
CONTROLS = 2


def apart(clear: Outcome, hidden: Outcome) -> float:
    """Return how far two models are from each other."""
    pairs = ((clear.model[key].double(), hidden.model[key].double()) for key in clear.model)
    return max(float((one - other).abs().max()) for one, other in pairs)


def moved(task: str, most: float, seed: int) -> Outcome:
    """Return a whole run in clear whose model was moved a little after the first round."""
    chance = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run_in(folder, [f"task={task}", "rounds=1"])
        path = folder / checkpoint.CHECKPOINT
        tensors, facts = checkpoint.load(path)
        for key, values in tensors.items():
            if key.startswith("model/"):
                tensors[key] = (values + chance.uniform(-most, most, values.shape)).astype("f4")
        checkpoint.save(path, tensors, facts)
        rounds = compose((f"task={task}",)).rounds
        return run_in(folder, [f"task={task}", f"rounds={rounds}", f"resume={quote(place)}"])


def control(task: str, most: float, clear: Outcome) -> dict[str, Any]:
    """Return how far whole runs end from `clear` that a small difference set apart."""
    ends = [moved(task, most, seed) for seed in range(1, CONTROLS + 1)]
    metric = clear.summary["metric"]
    return {
        "moved_after_one_round": most,
        "apart_at_the_end": [apart(clear, end) for end in ends],
        "moved": [end.summary["held_out"][metric] for end in ends],
    }


def main(tasks: Sequence[str]) -> None:
    """Run and print."""
    results = read_results("secure_equality")
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
        most = max(results[task][name]["apart_after_one_round"] for name in PROTECTED)
        results[task]["control"] = facts = control(task, most, clear_end)
        print(f"{task} · control ·", facts, flush=True)
        print(write_results("secure_equality", results))


if __name__ == "__main__":
    main(sys.argv[1:] or TASKS)
