"""What compression saves and costs: ``python -m benchmarks.compression [words ...]``.

Each case with its defaults, for the same number of rounds and seeds 1 to 3, against
``compression=none``: bytes that clients sent, evaluation included, and held-out accuracy at the
end. Words are data sets (``digits``; with FEDPROOF_DATA ``fashion_mnist``, a perceptron, and
``fashion_mnist_lenet``) and cases, all of them unless some are named. Prints each run and a table;
writes ``benchmarks/results/compression.json``, where what is not asked for stays.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from benchmarks.niid_bench import unpacked
from benchmarks.runs import read_results, run, write_results
from conf.compose import quote

ROUNDS = 30
SEEDS = (1, 2, 3)
WAYS = ("up", "down")
_FASHION_MNIST = (
    "task=vision", "task.dataset=fashion_mnist",
    "train.epochs=1", "train.batch_size=64", "train.lr=0.02",
)  # fmt: skip
SETS: Mapping[str, tuple[str, ...]] = {
    "digits": ("task=vision",),
    "fashion_mnist": (*_FASHION_MNIST, "model=mlp", "model.hidden=[64]"),
    "fashion_mnist_lenet": (*_FASHION_MNIST, "model=lenet"),
}
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
    "none, 60 rounds": ("rounds=60",),
    "topk, 1 %, 60 rounds": ("compression=topk", "rounds=60"),
    "none, 120 rounds": ("rounds=120",),
    "topk, 1 %, 120 rounds": ("compression=topk", "rounds=120"),
}


def measured(data: str, told: Sequence[str], name: str) -> dict[str, Any]:
    """Return a case's accuracy by seed, and the bytes of one run."""
    found: dict[str, float] = {}
    facts: dict[str, Any] = {}
    settings = [*SETS[data], *told, f"rounds={ROUNDS}", f"evaluate_every={ROUNDS}", *CASES[name]]
    for seed in SEEDS:
        summary = run([*settings, f"seed={seed}"]).summary
        found[str(seed)] = summary["held_out"]["accuracy"]
        facts = {"rounds": summary["rounds"], **{way: summary[f"bytes_{way}"] for way in WAYS}}
        print(f"{data} · {name} · seed {seed} · {found[str(seed)]:.4f} · {facts}", flush=True)
    return {"accuracy": found, **facts}


def table(results: Mapping[str, Any]) -> str:
    """Return the cases beside plain ones of as many rounds: shares of bytes, points lost."""
    plain = {facts["rounds"]: facts for name, facts in results.items() if name.startswith("none")}
    lines = [
        "| compression | bytes up | bytes down | accuracy | points lost |",
        "|---|---|---|---|---|",
    ]
    for name, facts in results.items():
        base, accuracy = plain[facts["rounds"]], mean(facts["accuracy"].values())
        lost = 100 * (mean(base["accuracy"].values()) - accuracy)
        shares = " | ".join(f"{facts[way] / base[way]:.3f}" for way in WAYS)
        lines.append(f"| {name} | {shares} | {accuracy:.4f} | {lost:+.2f} |")
    return "\n".join(lines)


def main(words: Sequence[str]) -> None:
    """Run and print."""
    results = read_results("compression")
    for data in [data for data in SETS if data in words] or SETS:
        cases = results.setdefault(data, {})
        with contextlib.nullcontext() if data == "digits" else unpacked() as root:
            told = [f"task.path={quote(root)}"] if root else []
            for name in [name for name in CASES if name in words] or CASES:
                cases[name] = measured(data, told, name)
                write_results("compression", results)
        print(table({name: cases[name] for name in CASES if name in cases}))


if __name__ == "__main__":
    main(sys.argv[1:])
