"""The noise that `privacy.epsilon` finds, over many targets, held against dp-accounting.

Usage::

    python -m benchmarks.accounting

For each combination of ε, δ, sampling rate and steps: the noise multiplier, ε with it and with
0.5 % less, as shares of the target, and the seconds it took. Up to 5,000 steps also ε by
dp-accounting's PLD with cells of a fiftieth of the losses' deviation. Writes
``benchmarks/results/accounting.json``.
"""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

from benchmarks.runs import write_results
from task.privacy.accounting import Spend, epsilon, solve_sigma

TARGETS = (0.01, 0.05, 0.3, 1.0, 3.0, 8.0)
DELTAS = (1e-5, 1e-9)
RATES = (0.001, 0.01, 0.1, 0.5, 1.0)
STEPS = (1, 20, 400, 5_000, 1_000_000)
_LESS = 0.995
_REFERENCE_STEPS = 5_000


def reference(sigma: float, rate: float, steps: int, delta: float) -> float:
    """Return ε by dp-accounting."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    cell = 0.02 * rate * min(1.0, math.sqrt(math.expm1(sigma**-2)))
    one = pld.from_gaussian_mechanism(sigma, sampling_prob=rate, value_discretization_interval=cell)
    return float(one.self_compose(steps).get_epsilon_for_delta(delta))


def main() -> None:
    """Solve all combinations, and print what is the worst."""
    rows: list[dict[str, Any]] = []
    for target, delta, rate, steps in itertools.product(TARGETS, DELTAS, RATES, STEPS):
        started = time.monotonic()
        sigma = solve_sigma(target, delta, rate, steps)
        seconds = time.monotonic() - started
        with_it, with_less = (
            epsilon([Spend(sigma * share, rate, steps)], delta) / target for share in (1, _LESS)
        )
        row: dict[str, Any] = {
            "epsilon": target, "delta": delta, "rate": rate, "steps": steps,
            "sigma": sigma, "share": with_it, "share_with_less_noise": with_less,
            "seconds": round(seconds, 3),
        }  # fmt: skip
        # Below, its own cells are lost in rounding (of δ in probabilities, of tiny losses).
        if 1 < steps <= _REFERENCE_STEPS and delta > 1e-8 and 0.01 <= rate < 1 and target >= 0.3:
            row["reference"] = reference(sigma, rate, steps, delta) / target
        rows.append(row)
    found = [row["reference"] for row in rows if "reference" in row]
    results = {
        "combinations": len(rows),
        "too_little_noise": sum(row["share"] > 1 for row in rows),
        "less_would_do": sum(row["share_with_less_noise"] <= 1 for row in rows),
        "by_dp_accounting": {"least": min(found), "most": max(found), "combinations": len(found)},
        "seconds_most": max(row["seconds"] for row in rows),
        "rows": rows,
    }
    print({key: value for key, value in results.items() if key != "rows"})
    print(write_results("accounting", results))


if __name__ == "__main__":
    main()
