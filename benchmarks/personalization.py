"""Personal models against one for all and against none: ``python -m benchmarks.personalization``.

Arguments choose among ``hapt`` (30 people with twelve labelled windows each), ``femnist`` (105
writers; FEDPROOF_DATA) and ``keyboard`` (eight speaking roles); ``--methods`` among methods, and
``--seeds`` says which. Every method's settings are chosen per seed among its candidates, by the
clients' mean accuracy on a part of that seed's training rows; held-out rows are read once, with
what was chosen. A run that is in the results already is not done again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.data import training_rows
from benchmarks.runs import ROOT, read_results, run, write_results
from conf.compose import quote
from conf.errors import FedproofError

DATA = Path(os.environ.get("FEDPROOF_DATA", ROOT.parent / "shared" / "data"))
RESULTS = "personalization"
SETS: dict[str, tuple[str, ...]] = {
    "hapt": ("task=iot", "task.split=rows", "task.test_fraction=0.75", "rounds=10"),
    "femnist": (
        "task=vision", "task.dataset=femnist", "partition=natural", "federation.clients=null",
        f"task.path={quote(DATA / 'femnist' / 'femnist_100writers.npz')}",
        "model=mlp", "model.hidden=[128]", "rounds=20",
    ),
    "keyboard": ("task=keyboard", "federation.clients=8", "federation.fraction=1", "rounds=8"),
}  # fmt: skip
SLOW = {"hapt": "0.005", "femnist": "0.005", "keyboard": "0.3"}
"""Learning rates well below those with which the tasks train."""
CANDIDATES: dict[str, tuple[tuple[str, ...], ...]] = {
    "local": ((), ("train.lr={slow}",)),
    "finetune": ((), ("personalization.steps=50",), ("personalization.lr={slow}",)),
    "fedper": ((), ("personalization.layers=2",)),
    "fedrep": (("personalization.head_epochs=2",), ()),
    "ditto": ((), ("personalization.lambda=1.0",)),
    "apfl": ((), ("personalization.alpha=0.25",)),
    "fedbn": ((),),
    "ifca": ((),),
}
CHOSEN = {
    "hapt": tuple(CANDIDATES),
    "femnist": ("local", "finetune", "fedper", "fedrep", "ditto", "apfl"),
    "keyboard": ("local", "finetune", "fedper"),
}
"""What there is time for; the other models have no normalisation layers."""
FIGURES = ("mean", "worst_decile")


def measure(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the clients' mean accuracy and that of the worst tenth, of both models; and bytes."""
    started = time.monotonic()
    summary = run([*overrides, "evaluate_every=1000"]).summary
    figures = {
        f"{name}{prefix and '_global'}": round(summary[name][f"{prefix}accuracy"], 4)
        for name in FIGURES
        for prefix in ("", "global_")
        if f"{prefix}accuracy" in summary[name]
    }
    moved = summary["bytes_down"] + summary["bytes_up"]
    return {**figures, "bytes": moved, "seconds": round(time.monotonic() - started, 1)}


def choose(
    told: tuple[str, ...], method: str, slow: str
) -> tuple[tuple[str, ...], dict[str, float]]:
    """Return a method's best candidate on training rows, and the accuracy of each."""
    candidates = [tuple(part.format(slow=slow) for part in c) for c in CANDIDATES[method]]
    if len(candidates) == 1:
        return candidates[0], {}
    with tempfile.TemporaryDirectory() as folder:
        inner = (*told, *training_rows.overrides(told, Path(folder)), _named(method))
        found: dict[tuple[str, ...], float] = {}
        for candidate in candidates:
            # One that the data set's model refuses is none.
            with contextlib.suppress(FedproofError):
                found[candidate] = measure([*inner, *candidate])["mean"]
    best = max(found, key=lambda candidate: found[candidate])
    return best, {" ".join(candidate) or "defaults": mean for candidate, mean in found.items()}


def main(names: Sequence[str], seeds: Sequence[int], methods: Sequence[str]) -> None:
    """Run methods on data sets; write after each what is known so far."""
    results = read_results(RESULTS)
    for name in names:
        # Where data lie is no setting.
        settings = [override for override in SETS[name] if not override.startswith("task.path=")]
        if results.get(name, {}).get("settings") != settings:
            results[name] = {"settings": settings, "seeds": {}}
        for seed in seeds:
            done = results[name]["seeds"].setdefault(str(seed), {})
            for method in [m for m in methods or CHOSEN[name] if m not in done]:
                told = (*SETS[name], f"seed={seed}")
                chosen, validation = choose(told, method, SLOW[name])
                figures = measure([*told, _named(method), *chosen])
                done[method] = {"chosen": [*chosen], "validation": validation, **figures}
                if method == "finetune":
                    # Fine-tuning leaves rounds as they are: its global model is plain FedAvg's.
                    done["fedavg"] = {key: figures[f"{key}_global"] for key in FIGURES}
                print(name, seed, method, done[method], flush=True)
                write_results(RESULTS, results)
        print(table(results[name]["seeds"]))


def table(seeds: dict[str, dict[str, Any]]) -> str:
    """Return methods' means over seeds, and by how much each beats FedAvg's and local-only models.

    In brackets, in how many of the seeds it beats both.
    """
    known = [m for m in ("fedavg", *CANDIDATES) if all(m in found for found in seeds.values())]
    lines = ["| | mean | over FedAvg | over local | worst tenth | over FedAvg | over local |"]
    lines.append("|---|---|---|---|---|---|---|")
    for method in known:
        cells = [f"`{method}`"]
        for figure in FIGURES:
            scores = {m: [found[m][figure] for found in seeds.values()] for m in known}
            mine = scores[method]
            others = [scores[m] for m in ("fedavg", "local") if m in scores]
            beaten = sum(a > max(b) for a, *b in zip(mine, *others, strict=True))
            gains = [f"{100 * (statistics.mean(mine) - statistics.mean(o)):+.1f}" for o in others]
            cells += [f"{statistics.mean(mine):.3f} ({beaten} of {len(mine)})", *gains]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _named(method: str) -> str:
    return f"personalization={method}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*SETS, []])
    parser.add_argument("--seeds", type=int, nargs="*", default=(1, 2, 3))
    parser.add_argument("--methods", nargs="*", default=(), choices=CANDIDATES)
    given = parser.parse_args()
    main(given.names or list(SETS), given.seeds, given.methods)
