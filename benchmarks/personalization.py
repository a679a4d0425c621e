"""Personal models against one for all and against none: ``python -m benchmarks.personalization``.

Arguments choose among ``hapt`` (30 people), ``femnist`` (105 writers; FEDPROOF_DATA) and
``keyboard`` (128 speaking roles); ``--methods`` among methods; ``--rounds N`` shortens all. Every
method trains from the same seed with the same settings, and clients are compared on their own
held-out rows after the last round.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.runs import ROOT, run, write_results
from conf.compose import quote

DATA = Path(os.environ.get("FEDPROOF_DATA", ROOT.parent / "shared" / "data"))
KNOWN = ROOT / "benchmarks" / "results" / "personalization.json"
SETS = {
    "hapt": ("task=iot", "task.split=rows", "rounds=10"),
    "femnist": (
        "task=vision", "task.dataset=femnist", "partition=natural", "federation.clients=null",
        f"task.path={quote(DATA / 'femnist' / 'femnist_100writers.npz')}", "rounds=10",
    ),
    "keyboard": ("task=keyboard", "federation.fraction=0.25", "rounds=10"),
}  # fmt: skip
METHODS = {
    "local": ("personalization=local",),
    "finetune": ("personalization=finetune",),
    "fedper": ("personalization=fedper",),
    "fedbn": ("personalization=fedbn",),
    "fedrep": ("personalization=fedrep", "personalization.head_epochs=2"),
    "ditto": ("personalization=ditto",),
    "apfl": ("personalization=apfl",),
    "ifca": ("personalization=ifca",),
}
CHOSEN = {
    "hapt": tuple(METHODS),
    "femnist": ("local", "finetune", "fedper", "ditto"),
    "keyboard": ("local", "finetune", "fedper"),
}
"""What there is time for; keyboard's model has no normalisation layers."""


def measure(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the clients' mean accuracy and that of the worst tenth, of both models; and bytes."""
    started = time.monotonic()
    summary = run(overrides).summary
    figures = {
        f"{name}{prefix and '_global'}": round(summary[name][f"{prefix}accuracy"], 4)
        for name in ("mean", "worst_decile")
        for prefix in ("", "global_")
        if f"{prefix}accuracy" in summary[name]
    }
    bytes_moved = summary["bytes_down"] + summary["bytes_up"]
    return {**figures, "bytes": bytes_moved, "seconds": round(time.monotonic() - started, 1)}


def main(names: Sequence[str], rounds: int | None, methods: Sequence[str]) -> None:
    """Run methods on data sets; write after each what is known so far, from earlier runs too."""
    results: dict[str, Any] = json.loads(KNOWN.read_text()) if KNOWN.is_file() else {}
    for name in names:
        told = [*SETS[name], *([f"rounds={rounds}"] if rounds else [])]
        told.append(f"evaluate_every={rounds or 10}")
        if results.get(name, {}).get("settings") != told:
            results[name] = {"settings": told}
        for method in methods or CHOSEN[name]:
            figures = measure([*told, *METHODS[method]])
            results[name][method] = figures
            if method == "finetune":
                # Fine-tuning leaves rounds as they are: its global model is plain FedAvg's.
                results[name]["fedavg"] = {
                    key: figures[f"{key}_global"] for key in ("mean", "worst_decile")
                }
            print(name, method, figures, flush=True)
            write_results("personalization", results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*SETS, []])
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--methods", nargs="*", default=(), choices=METHODS)
    given = parser.parse_args()
    main(given.names or list(SETS), given.rounds, given.methods)
