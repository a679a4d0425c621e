"""What compression saves and costs on digits: ``python -m benchmarks.compression [case ...]``.

Each case with its defaults, for the same number of rounds and seeds 1 to 3, against
``compression=none``: bytes that clients sent, evaluation included, and held-out accuracy at the
end. Prints each run and a table; writes ``benchmarks/results/compression.json``, where cases that
are not asked for stay.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from benchmarks.runs import read_results, run, write_results

ROUNDS = 30
SEEDS = (1, 2, 3)
SETTINGS = ("task=vision", f"rounds={ROUNDS}", f"evaluate_every={ROUNDS}")
CASES: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "int8": ("compression=int8",),
    "topk, 1 %": ("compression=topk",),
    "quantize, 4 bits": ("compression=quantize",),
    "quantize, 2 bits": ("compression=quantize", "compression.bits=2"),
    "powersgd, rank 2": ("compression=powersgd",),
    "random_mask, 10 %": ("compression=random_mask",),
    "fp16": ("compression=fp16",),
    "bf16": ("compression=bf16",),
    "topk, 1 %, down int8": ("compression=topk", "compression.down=int8"),
}


def measured(name: str) -> dict[str, Any]:
    """Return a case's accuracy by seed, and the bytes of one run."""
    found: dict[str, float] = {}
    facts: dict[str, Any] = {}
    for seed in SEEDS:
        summary = run([*SETTINGS, *CASES[name], f"seed={seed}"]).summary
        found[str(seed)] = summary["held_out"]["accuracy"]
        facts = {"up": summary["bytes_up"], "down": summary["bytes_down"]}
        print(f"{name} · seed {seed} · accuracy {found[str(seed)]:.4f} · {facts}", flush=True)
    return {"rounds": ROUNDS, "accuracy": found, **facts}


def table(results: Mapping[str, Any]) -> str:
    """Return the cases beside ``none``: bytes as shares of its own, accuracy in points."""
    base = results["none"]
    lines = [
        "| compression | bytes up | bytes down | accuracy | points lost |",
        "|---|---|---|---|---|",
    ]
    for name, facts in results.items():
        accuracy = mean(facts["accuracy"].values())
        lost = 100 * (mean(base["accuracy"].values()) - accuracy)
        shares = " | ".join(f"{facts[way] / base[way]:.3f}" for way in ("up", "down"))
        lines.append(f"| {name} | {shares} | {accuracy:.4f} | {lost:+.2f} |")
    return "\n".join(lines)


def main(cases: Sequence[str]) -> None:
    """Run and print."""
    results = read_results("compression")
    for name in cases:
        results[name] = measured(name)
        write_results("compression", {c: results[c] for c in CASES if c in results})
    print(table(results))


if __name__ == "__main__":
    main(sys.argv[1:] or list(CASES))
