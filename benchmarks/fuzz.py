"""Random input to every parser, as many as wanted.

    python -m benchmarks.fuzz [--inputs N]

Writes ``benchmarks/results/fuzz.json``: inputs and seconds by parser. What is found is raised.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from hypothesis import HealthCheck, given, settings

from benchmarks.runs import write_results
from tests.fuzzing import TARGETS


def main() -> None:
    """Run all, an equal share each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz")
    parser.add_argument("--inputs", type=int, default=100_000, help="default: %(default)s")
    share = parser.parse_args().inputs // len(TARGETS)
    results: dict[str, Any] = {}
    for name, (strategy, target) in TARGETS.items():
        count, started = 0, time.monotonic()

        def counted(value: Any, target: Any = target) -> None:
            nonlocal count
            count += 1
            target(value)

        many = settings(
            max_examples=share, deadline=None, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        many(given(strategy)(lambda value, run=counted: run(value)))()
        results[name] = {"inputs": count, "seconds": round(time.monotonic() - started, 1)}
        print(name, results[name], flush=True)
    print(write_results("fuzz", results))


if __name__ == "__main__":
    main()
