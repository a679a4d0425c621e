"""Distributed against central client-level privacy at equal noise.

    python -m benchmarks.distributed_dp [--seeds N]

Digits, 40 clients who all take part in ten rounds: the server adds Gaussian noise to the sum
(``privacy=client_dp``), or each client adds integers to its vector under the masks
(``privacy=distributed_dp``), 16 bits wide. Same clip, same noise multiplier, same seeds, in
turns. Prints accuracies and ε; writes ``benchmarks/results/distributed_dp.json``.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from benchmarks.runs import run, write_results

SETTINGS = (
    "task=vision", "model=logistic", "federation.clients=40", "rounds=10", "evaluate_every=10",
    "train.epochs=4", "privacy.sigma=1.5", "privacy.clip=1", "privacy.delta=1e-3",
)  # fmt: skip
SECURE = ("privacy=distributed_dp", "aggregation=secagg", "aggregation.range=64")
CONTENDERS = {
    "central": ("privacy=client_dp",),
    "discrete Gaussian, 16 bits": (*SECURE, "aggregation.bits=16"),
    "Skellam, 16 bits": (*SECURE, "aggregation.bits=16", "privacy.noise=skellam"),
}


def main() -> None:
    """Run all contenders with each seed, and print their means."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed_dp")
    parser.add_argument("--seeds", type=int, default=5, help="default: %(default)s")
    seeds = range(1, parser.parse_args().seeds + 1)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    for seed in seeds:
        for name, told in CONTENDERS.items():
            summary = run([*told, *SETTINGS, f"seed={seed}"]).summary
            figures = summary["held_out"]["accuracy"], summary["privacy"]["epsilon_most"]
            found[name].append(figures)
            print(
                f"seed {seed} · {name}: accuracy {figures[0]:.4f}, ε {figures[1]:.3f}", flush=True
            )
    results: dict[str, Any] = {}
    for name, pairs in found.items():
        accuracies = [accuracy for accuracy, _ in pairs]
        results[name] = {
            "accuracy": statistics.mean(accuracies),
            "accuracies": accuracies,
            "epsilon": max(cost for _, cost in pairs),
        }
        told = results[name]
        print(f"{name}: accuracy {told['accuracy']:.4f}, ε {told['epsilon']:.3f}")
    print(write_results("distributed_dp", results))


if __name__ == "__main__":
    main()
