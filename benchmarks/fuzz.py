"""Random input to every parser and handler, as many as wanted.

    python -m benchmarks.fuzz [--inputs N]

Writes ``benchmarks/results/fuzz.json``: inputs and seconds by parser. What is found is raised.
A silo's handlers, which write their audit log to the disk each time, get a tenth of the others'.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from benchmarks.runs import write_results
from tests.client_app.silo import KINDS, Silo, handler
from tests.fuzzing import TARGETS

_SHARE = 10


def campaign(strategy: SearchStrategy[Any], target: Callable[[Any], object], most: int) -> Any:
    """Try so many inputs; return how many there were, and how long they took."""
    count, started = 0, time.monotonic()

    def counted(value: Any) -> None:
        nonlocal count
        count += 1
        target(value)

    many = settings(
        max_examples=most, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    many(given(strategy)(counted))()
    return {"inputs": count, "seconds": round(time.monotonic() - started, 1)}


def main() -> None:
    """Run all, an equal share each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz")
    parser.add_argument("--inputs", type=int, default=100_000, help="default: %(default)s")
    share = parser.parse_args().inputs // len(TARGETS) + 1
    logging.getLogger("flwr").setLevel(logging.ERROR)
    results: dict[str, Any] = {}
    for name, (strategy, target) in TARGETS.items():
        results[name] = campaign(strategy, target, share)
        print(name, results[name], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            strategy, ask = handler(Silo(Path(folder) / kind), kind)
            results[f"silo: {kind}"] = campaign(strategy, ask, share // _SHARE)
            print(kind, results[f"silo: {kind}"], flush=True)
    results["all"] = {
        what: round(sum(found[what] for found in results.values()), 1)
        for what in ("inputs", "seconds")
    }
    print(write_results("fuzz", results))


if __name__ == "__main__":
    main()
