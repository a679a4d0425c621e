"""What record-level privacy costs in accuracy: ``python -m benchmarks.dp_utility [task ...]``.

Trains tasks with ε of 1, 3 and 8 for all rounds together and without privacy, at otherwise
equal settings, and prints the table of docs/privacy.md; each row's command stands beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from benchmarks.runs import read_results, run, write_results

SEEDS = (42, 43, 44)
ONE_SEED = {"keyboard"}
"""A run of it takes minutes."""
EPSILONS = (1.0, 3.0, 8.0)
TASKS: Mapping[str, Sequence[str]] = {
    "healthcare": (
        "train.epochs=1", "rounds=5", "model=logistic", "train.lr=0.5", "privacy.clip=0.5",
    ),
    "finance": ("rounds=5", "train.lr=2.0", "privacy.clip=0.5"),
    "vision": (
        "federation.clients=5", "rounds=10", "train.epochs=2", "train.batch_size=32",
        "train.lr=0.5", "train.momentum=0.0",
    ),
    "iot": (
        "model.channels=[16]", "model.kernel=9", "model.groups=1", "model.dropout=0.0", "rounds=20",
        "train.steps=2", "train.batch_size=48", "train.lr=2.5", "train.momentum=0.0",
        "privacy.clip=0.5",
    ),
    "keyboard": (
        "partition=iid", "federation.clients=8", "federation.fraction=1", "model=char_transformer",
        "model.width=32", "model.layers=1", "rounds=10", "train.steps=5", "train.batch_size=64",
        "train.lr=1.0", "train.max_grad_norm=null", "privacy.clip=0.5",
    ),
}  # fmt: skip
SCALING = {"healthcare": "local", "finance": "local", "iot": "local"}
"""Of tasks whose features have units; federated scaling tells sums without noise."""


UNCLIPPED = {"keyboard": ("train.max_grad_norm=1.0",)}
"""What a task needs besides where privacy does not clip."""


def settings(task: str, epsilon: float | None) -> list[str]:
    """Return the overrides of one run."""
    scaling = [f"task.scaling={SCALING.get(task, 'none')}"]
    told = [o for o in TASKS[task] if epsilon is not None or not o.startswith("privacy.")]
    privacy = [] if epsilon is None else ["privacy=record_dp", f"privacy.epsilon={epsilon:g}.0"]
    besides = UNCLIPPED.get(task, ()) if epsilon is None else ()
    return [f"task={task}", *scaling, *privacy, *told, *besides, "evaluate_every=100"]


def measured(task: str, epsilon: float | None, seed: int) -> tuple[str, float]:
    """Return the headline metric and its value on held-out rows."""
    summary = run([*settings(task, epsilon), f"seed={seed}"]).summary
    if epsilon is not None:
        assert summary["privacy"]["epsilon_most"] <= epsilon
    return summary["metric"], summary["held_out"][summary["metric"]]


def main(tasks: Sequence[str]) -> None:
    """Run and print."""
    results = read_results("dp_utility")
    for task in tasks:
        print(f"fedproof {' '.join(settings(task, 3.0))}", flush=True)
        for epsilon in (*EPSILONS, None):
            seeds = SEEDS[:1] if task in ONE_SEED else SEEDS
            found = [measured(task, epsilon, seed) for seed in seeds]
            name, mean = found[0][0], sum(value for _, value in found) / len(found)
            label = "∞" if epsilon is None else f"{epsilon:g}"
            results.setdefault(f"{task} ({name})", {})[label] = round(mean, 4)
            print(f"  ε {label}: {name} {mean:.4f}", flush=True)
    print(write_results("dp_utility", results))


if __name__ == "__main__":
    main(sys.argv[1:] or list(TASKS))
