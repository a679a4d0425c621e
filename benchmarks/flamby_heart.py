"""Hold Fed-Heart-Disease against FLamby's published table: ``python -m benchmarks.flamby_heart``.

"Pooled test" standardises the held-out rows with the federation's training statistics, "mean of
centres" with each centre's own, as FLamby's two evaluations do. Five seeds, 42 to 46.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

from benchmarks.runs import run, write_results

SEEDS = range(42, 47)
PUBLISHED = {
    "fedavg": (0.748, 0.685),
    "fedprox": (0.748, 0.685),
    "fedadam": (0.779, 0.726),
    "fedyogi": (0.779, 0.731),
    "fedadagrad": (0.779, 0.731),
}
ADAPTIVE = ["strategy.tau=1e-8", "strategy.beta_2=0.999"]
RATES = {
    "fedavg": [],
    "fedprox": ["strategy.proximal_mu=0.01"],
    "fedadam": ["train.lr=0.01", "strategy.eta=0.01", "strategy.bias_correction=false",
                *ADAPTIVE],
    "fedyogi": ["train.lr=0.003162", "strategy.eta=0.01", *ADAPTIVE],
    "fedadagrad": ["train.lr=0.003162", "strategy.eta=0.316228", "strategy.tau=1e-8"],
}  # fmt: skip


def measure(overrides: Sequence[str]) -> tuple[list[float], list[float]]:
    """Return pooled-test and mean-of-centres accuracy for every seed."""
    pooled, mean = [], []
    for seed in SEEDS:
        scalings = [["task.scaling=federated"], ["task.scaling=local"]]
        outcome = run([*overrides, f"seed={seed}"], scalings)
        pooled.append(outcome.evaluations[0][0]["accuracy"])
        mean.append(statistics.mean(row["accuracy"] for row in outcome.evaluations[1][1]))
    return pooled, mean


def main(strategies: Sequence[str]) -> None:
    """Print the table, ours beside FLamby's."""
    results = {}
    print("| strategy | pooled test | FLamby | mean of centres | FLamby |\n|---|---|---|---|---|")
    rows = {name: ["experiment=flamby_heart", f"strategy={name}", *RATES[name]] for name in RATES}
    rows["heart_best"] = ["experiment=heart_best"]
    for name in strategies or rows:
        pooled, mean = measure(rows[name])
        theirs = PUBLISHED.get(name, ("–", "–"))
        results[name] = {"pooled_test": pooled, "mean_of_centres": mean, "flamby": theirs}
        print(
            f"| {name} | {statistics.mean(pooled):.3f} | {theirs[0]} "
            f"| {statistics.mean(mean):.3f} | {theirs[1]} |",
            flush=True,
        )
    print(write_results("flamby_heart", results))


if __name__ == "__main__":
    main(sys.argv[1:])
