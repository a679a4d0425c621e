"""Seconds, bytes and memory of secure aggregation, for a model of a million parameters.

    python -m benchmarks.secagg [case ...]

Per client: dealing shares, encoding, masking, agreeing and unmasking, and what it uploads in a
session (without framing); the server: taking the masks off after clients dropped out, and the
memory that the session takes of it; what a process does once, like loading OpenSSL, is done before.
Where Flower's own SecAgg+ takes part, the two take turns.
Prints medians over clients and passes, and writes them to ``benchmarks/results/secagg.json``, where
those of other cases stay.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.runs import ROOT, write_results
from benchmarks.secagg.flower import FlowerPlay
from benchmarks.secagg.session import Cohort, Play, Timed

PARAMETERS = 1_000_000
COLUMNS = ("share_s", "encode_s", "mask_s", "agree_s", "unmask_s", "server_s")


@dataclass(frozen=True)
class Case:
    """What is measured, how often, Flower's how often, and what ours may take at most."""

    cohort: Cohort
    passes: int
    flower: int = 0
    targets: Mapping[str, float] = field(default_factory=dict)


CASES = {
    "10": Case(
        Cohort(10, 0.2), 5, 5, {"mask_s": 0.05, "server_s": 0.1, "upload_per_parameter": 4.2}
    ),
    "10, 16 bits": Case(Cohort(10, 0.2, bits=16), 5, targets={"upload_per_parameter": 2.1}),
    "50": Case(Cohort(50, 0.2), 3, 1, {"server_s": 1.0, "upload_per_parameter": 4.2}),
    "1000": Case(Cohort(1000, 0.1, measured=20), 1, targets={"upload_per_parameter": 4.2}),
}


def summary(runs: list[Timed], targets: Mapping[str, float]) -> dict[str, Any]:
    """Return the medians of all passes, and whether they are what they should."""
    facts: dict[str, Any] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    facts["upload_per_parameter"] = facts["upload_bytes"] / PARAMETERS
    facts["passes"] = len(runs)
    if targets:
        facts["target"] = dict(targets)
        facts["met"] = all(facts[what] <= most for what, most in targets.items())
    return facts


def measure(case: Case, update: torch.Tensor) -> dict[str, dict[str, Any]]:
    """Return what a case takes, by whose it is."""
    runs: dict[str, list[Timed]] = {"ours": []}
    flower = FlowerPlay(case.cohort, update.numpy()) if case.flower else None
    for turn in range(case.passes):
        runs["ours"].append(Play(case.cohort, update).run())
        if flower and turn < case.flower:
            runs.setdefault("flower", []).append(flower.run())
    return {
        whose: summary(all_, case.targets if whose == "ours" else {})
        for whose, all_ in runs.items()
    }


def show(name: str, facts: dict[str, Any]) -> None:
    """Print a line of the table."""
    cells = [f"{facts[key]:9.4f}" if key in facts else f"{'':9}" for key in COLUMNS]
    peak = f"{facts['server_peak_bytes'] / 1e6:8.1f}" if "server_peak_bytes" in facts else " " * 8
    verdict = {None: "", True: "met", False: "MISSED"}[facts.get("met")]
    print(f"{name:20}", *cells, f"{facts['upload_per_parameter']:9.3f}", peak, "", verdict)


def main() -> None:
    """Run what was asked for, and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.secagg")
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    update = torch.randn(PARAMETERS, generator=torch.Generator().manual_seed(0)).mul_(0.1)
    path = ROOT / "benchmarks" / "results" / "secagg.json"
    results = json.loads(path.read_text("utf-8")) if path.exists() else {"cases": {}}
    print(f"{'clients':20}", *(f"{key:>9}" for key in (*COLUMNS, "bytes/par")), "peak MB")
    for name in parser.parse_args().cases:
        case = CASES[name]
        facts = measure(case, update)
        for whose, figures in facts.items():
            show(f"{name} {whose}", figures)
        cohort = {key: value for key, value in vars(case.cohort).items() if value is not None}
        results["cases"][name] = {**cohort, **facts}
        cases = {known: results["cases"][known] for known in CASES if known in results["cases"]}
        write_results("secagg", {"parameters": PARAMETERS, "cases": cases})


if __name__ == "__main__":
    main()
