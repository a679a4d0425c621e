"""What noised evaluation tells, and what it costs: ``python -m benchmarks.dp_evaluation``.

Trains `healthcare` under record-level privacy, evaluated with noise once or after each round, and
holds the noised figures against exact ones of the same models; beside them models whose training
had the whole budget.
"""

from __future__ import annotations

import math
import statistics

from benchmarks.dp_utility import settings
from benchmarks.runs import run, write_results

SEEDS = range(42, 48)
EPSILONS = (3.0, 8.0)
EVERY = (5, 1)
"""Rounds from one evaluation to the next, of five."""
METRICS = ("accuracy", "auroc")


def measured(epsilon: float, every: int) -> dict[str, float | int]:
    """Return figures of models that were evaluated with noise, over all seeds."""
    told = [o for o in settings("healthcare", epsilon) if not o.startswith("evaluate_every")]
    told += [f"evaluate_every={every}", "privacy.evaluation=noised"]
    exact: list[float] = []
    errors: list[float] = []
    apart: dict[str, list[float]] = {name: [] for name in METRICS}
    for seed in SEEDS:
        outcome = run([*told, f"seed={seed}"], [[f"seed={seed}"]])
        assert outcome.summary["privacy"]["epsilon_most"] <= epsilon
        truth, noised = outcome.evaluations[0][0], outcome.summary["held_out"]
        exact.append(truth["accuracy"])
        errors += [outcome.summary["standard_error"]["accuracy"]] if noised else []
        for name in METRICS:
            apart[name] += [noised[name] - truth[name]] if name in noised else []
    result: dict[str, float | int] = {"exact accuracy": statistics.fmean(exact)}
    result["runs that told figures"] = len(errors)
    if errors:
        result["standard error of accuracy, as told"] = statistics.fmean(errors)
        for name, values in apart.items():
            if not values:
                continue
            result[f"{name}, noised less exact: mean"] = statistics.fmean(values)
            result[f"{name}, told in"] = len(values)
            squares = statistics.fmean(value**2 for value in values)
            result[f"{name}, noised less exact: root mean square"] = math.sqrt(squares)
    return {name: round(value, 4) for name, value in result.items()}


def whole_budget(epsilon: float) -> float:
    """Return the mean accuracy of models whose evaluation cost nothing."""
    told = settings("healthcare", epsilon)
    found = [run([*told, f"seed={seed}"]).summary["held_out"]["accuracy"] for seed in SEEDS]
    return round(statistics.fmean(found), 4)


def main() -> None:
    """Run and print."""
    results: dict[str, dict[str, float | int]] = {}
    for epsilon in EPSILONS:
        results[f"ε {epsilon:g}, exact evaluation"] = {"exact accuracy": whole_budget(epsilon)}
        for every in EVERY:
            results[f"ε {epsilon:g}, noised, evaluations: {-(-5 // every)}"] = measured(
                epsilon, every
            )
    for name, found in results.items():
        print(name, found)
    print(write_results("dp_evaluation", results))


if __name__ == "__main__":
    main()
