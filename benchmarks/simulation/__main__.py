"""Seconds per round and peak memory of Fedproof and its peers, on the same work.

    python -m benchmarks.simulation [--workloads W0,W1,W2] [--contenders NAME,...]

Contenders take turns, so that whatever else the machine does falls on all of them; the first round
of each run is not timed. Prints a table per workload, and writes
``benchmarks/results/simulation.json`` and ``simulation.png``. Nothing else should run meanwhile:
it would take time from all of them, and memory of programs that use the same torch counts less.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Collection
from importlib.metadata import version

from benchmarks.simulation.contenders import CONTENDERS
from benchmarks.simulation.environments import PFL
from benchmarks.simulation.measure import ROOT, measure
from benchmarks.simulation.report import Row, plot, table
from benchmarks.simulation.workloads import WORKLOADS
from conf.errors import FedproofError

Results = dict[str, dict[str, Row]]
"""By workload and contender."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation")
    for what, known in (("workloads", WORKLOADS), ("contenders", CONTENDERS)):
        parser.add_argument(f"--{what}", default=",".join(known), help="default: %(default)s")
    parser.add_argument("--passes", type=int, default=2, help="runs of each; default: %(default)s")
    parser.add_argument("--rounds", type=int, help="timed, of each run; default: the workload's")
    parser.add_argument(
        "--timeout", type=float, default=900.0, help="seconds for a run; default: %(default)s"
    )
    told = parser.parse_args()
    try:
        told.workloads = chosen(told.workloads, WORKLOADS)
        told.contenders = chosen(told.contenders, CONTENDERS)
    except FedproofError as error:
        parser.error(str(error))
    return told


def chosen(text: str, known: Collection[str]) -> list[str]:
    """Return the names that `text` lists, in the order in which they are known.

    Raises
    ------
    FedproofError
        If one is not known.
    """
    names = text.split(",")
    for name in names:
        if name not in known:
            raise FedproofError(f"no '{name}': choose some of {', '.join(known)}.")
    return [name for name in known if name in names]


def run(results: Results, workload: str, name: str, told: argparse.Namespace) -> None:
    """Run a contender once, unless it failed before; note the outcome and print it."""
    row = results[workload][name]
    if row.failure:
        return
    rounds = 1 + (told.rounds or WORKLOADS[workload].timed)
    try:
        command = CONTENDERS[name].command(workload, rounds)
        row.runs.append(measure(command, rounds, told.timeout))
    except FedproofError as error:
        row.failure = str(error)
    outcome = row.failure or " ".join(f"{seconds:.3g}" for seconds in row.runs[-1].seconds)
    print(f"{workload} {name}: {outcome}", flush=True)


def main() -> None:
    """Run all, and report.

    This process never imports torch: it would share torch's pages with the contenders, and so
    lower their proportional set size.
    """
    told = arguments()
    results: Results = {w: {name: Row() for name in told.contenders} for w in told.workloads}
    for _ in range(told.passes):
        for workload in told.workloads:
            for name in told.contenders:
                run(results, workload, name, told)
    for workload, rows in results.items():
        print("", *table(workload, rows), sep="\n")
    facts = {w: {name: row.facts() for name, row in rows.items()} for w, rows in results.items()}
    machine = {"cores": os.cpu_count(), "pfl": PFL}
    machine |= {name: version(name) for name in ("torch", "flwr", "ray")}
    path = ROOT / "benchmarks" / "results" / "simulation.json"
    path.write_text(json.dumps({"machine": machine, "workloads": facts}, indent=2) + "\n")
    plot(results, path.with_suffix(".png"))
    print(path)


if __name__ == "__main__":
    main()
