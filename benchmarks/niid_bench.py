"""Hold Fashion-MNIST against Flower's niid_bench: ``python -m benchmarks.niid_bench [words]``.

Ten clients, LeNet, ten local epochs; published are accuracies after 50 rounds. Each run stops at
the first round within `MARGIN` of its target. Words may be strategies and partitions, all of them
unless some are named, a number of rounds, and overrides:
``python -m benchmarks.niid_bench scaffold pathological 50 seed=43``.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.runs import ROOT, read_results, run, write_results
from conf.compose import quote
from server_app.evidence.events import Event, watching

PUBLISHED = {
    "dirichlet": {"fedavg": 0.8809, "fedprox": 0.8815, "scaffold": 0.8844, "fednova": 0.8822},
    "pathological": {"fedavg": 0.7810, "fedprox": 0.7805, "scaffold": 0.3380, "fednova": 0.7167},
}
PARTITION = {"pathological": ("partition.seed=42",)}
"""So that clients have the very labels that they had there (its Dirichlet deal is its own)."""
SETTINGS = {("pathological", "scaffold"): ("train.momentum=0",)}
"""What differs from the published recipe: with momentum 0.9 SCAFFOLD's local steps are ten times as
long, more than its variates bear where clients have two labels each."""
MARGIN = 0.015
RESULTS = "niid_bench"


class ReachedError(Exception):
    """The target is reached: nothing more to measure."""


@contextlib.contextmanager
def unpacked() -> Iterator[str]:
    """Yield a folder with the four IDX files where torchvision looks for them.

    Not left to torchvision, because it knows the checksums of other archives of the same files.
    """
    data = Path(os.environ.get("FEDPROOF_DATA", ROOT.parent / "shared" / "data")) / "FashionMNIST"
    if not data.is_dir():
        sys.exit(f"Fashion-MNIST is not at {data}: set FEDPROOF_DATA to the folder that holds it.")
    with tempfile.TemporaryDirectory() as root:
        target = Path(root) / "FashionMNIST" / "raw"
        target.mkdir(parents=True)
        for archive in (data / "raw").glob("*.gz"):
            (target / archive.stem).write_bytes(gzip.decompress(archive.read_bytes()))
        yield root


def target(partition: str, strategy: str) -> float:
    """Return the published accuracy; SCAFFOLD, which collapsed there, is held against FedAvg's."""
    published = PUBLISHED[partition]
    return max(published[strategy], published["fedavg"] if strategy == "scaffold" else 0.0)


def measure(
    root: str, partition: str, strategy: str, told: Sequence[str], results: dict[str, Any]
) -> None:
    """Train until the target is reached; print every round and keep it in the results' file."""
    goal, started = target(partition, strategy), time.monotonic()
    curve: list[float] = []
    line = results[f"{partition} {strategy} {' '.join(told)}"] = {
        "published": PUBLISHED[partition][strategy], "target": goal, "accuracy": curve,
        "settings": list(SETTINGS.get((partition, strategy), ())),
    }  # fmt: skip

    def watch(event: Event) -> None:
        if event["event"] != "round":
            return
        curve.append(event["held_out"]["accuracy"])
        line["minutes"] = round((time.monotonic() - started) / 60, 1)
        line["best"] = max(curve)
        write_results(RESULTS, results)
        print(
            f"{partition} {strategy} round {event['round']}: {curve[-1]:.4f} (published "
            f"{line['published']:.4f}) after {line['minutes']} min",
            flush=True,
        )
        if curve[-1] >= goal - MARGIN:
            raise ReachedError

    settings = ["experiment=niid_bench", f"partition={partition}", f"strategy={strategy}"]
    settings += PARTITION.get(partition, ())
    settings += SETTINGS.get((partition, strategy), ())
    with watching(watch), contextlib.suppress(ReachedError):
        run([*settings, f"task.path={quote(root)}", *told])


def main(words: Sequence[str]) -> None:
    """Measure what the words name."""
    told = [word for word in words if "=" in word]
    told += [f"rounds={word}" for word in words if word.isdigit()]
    partitions = [name for name in PUBLISHED if name in words] or list(PUBLISHED)
    known = list(PUBLISHED["dirichlet"])
    strategies = [name for name in known if name in words] or known
    # What other commands measured stays.
    results = read_results(RESULTS)
    with unpacked() as root:
        for partition, strategy in itertools.product(partitions, strategies):
            measure(root, partition, strategy, told, results)


if __name__ == "__main__":
    main(sys.argv[1:])
