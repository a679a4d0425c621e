"""What a round costs as clients become more: those sampled, and those that exist.

    python -m benchmarks.scaling

Models and data are tiny, so that what is left is Fedproof's own work. Medians of five rounds after
the first; printed and written to ``benchmarks/results/scaling.json`` and ``.png``.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.processes import measure
from benchmarks.runs import ROOT, write_results

SAMPLED = [(100_000, sampled) for sampled in (10, 100, 1_000, 10_000)]
POPULATION = [(population, 100) for population in (1_000, 10_000, 100_000, 1_000_000)]
ROUNDS = 6


def cost(population: int, sampled: int) -> dict[str, Any]:
    """Return seconds per round, to the start of the first, and peak memory."""
    fraction = sampled / population
    result = measure(
        [
            "task=synthetic", "task.shape=[8]", "task.rows=2", "task.test_rows=1",
            "task.classes=2", "train.batch_size=2", f"task.clients={population}",
            f"federation.fraction={fraction}", f"federation.fraction_evaluate={fraction}",
            f"rounds={ROUNDS + 1}", f"evaluate_every={ROUNDS + 1}",
            f"checkpoint_every={ROUNDS + 1}",
        ]
    )  # fmt: skip
    seconds = [line["seconds"] for line in result.rounds[1:-1]]
    assert all(len(line["answered"]) == sampled for line in result.rounds)
    return {
        "population": population,
        "sampled": sampled,
        "seconds_per_round": statistics.median(seconds),
        "peak_pss_mb": result.peak_pss / 1e6,
    }


def main() -> None:
    """Print the table."""
    results = []
    print(f"{'clients':>10} {'sampled':>8} {'s/round':>8} {'peak PSS':>9}")
    for population, sampled in dict.fromkeys([*SAMPLED, *POPULATION]):
        row = cost(population, sampled)
        results.append(row)
        seconds, memory = row["seconds_per_round"], row["peak_pss_mb"]
        print(f"{population:>10} {sampled:>8} {seconds:>8.3f} {memory:>6.0f} MB", flush=True)
    path = write_results("scaling", results)
    plot(results)
    print(path.relative_to(ROOT))


def plot(results: list[dict[str, Any]]) -> None:
    """Draw seconds per round over both axes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, constrained_layout=True)
    for axis, pairs, x in (
        (axes[0], SAMPLED, "sampled"),
        (axes[1], POPULATION, "population"),
    ):
        rows = [row for row in results if (row["population"], row["sampled"]) in pairs]
        axis.loglog([r[x] for r in rows], [r["seconds_per_round"] for r in rows], "o-")
        axis.set_xlabel(f"clients {'sampled' if x == 'sampled' else 'in the federation'}")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("seconds per round")
    figure.savefig(ROOT / "benchmarks" / "results" / "scaling.png", dpi=120)


if __name__ == "__main__":
    main()
