"""Seconds and bytes of homomorphic encryption for a model of a million parameters.

    python -m benchmarks.he [--passes N] [--parameters N]

Per client: encrypting, traffic against plain float32, the server's addition (reading included),
and decrypting the sum of three clients. `nvflare` is what NVFlare does: CKKS 8192 [60, 40, 40],
TenSEAL's defaults, a public key. Contenders take turns, one thread; prints a table of medians and
writes ``benchmarks/results/he.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from task.he.approximate import ApproximatePacking
from task.he.ciphertexts import EncryptedSum, Packing, decrypt, encrypt
from task.he.cohort import Cohort
from task.he.contexts import Key, library
from task.he.exact import ExactPacking
from task.he.quantize import Quantizer

RESULTS = Path(__file__).resolve().parent / "results" / "he.json"
ADDED = 3
"""Clients in a sum."""
CLIENTS, HEAVIEST = 100, 10_000
"""Clients and weights that headroom is kept for."""
TARGETS = {"bfv": (0.6, 4.1), "bfv, two values a slot": (0.6, 2.1)}
"""Seconds to encrypt and times plain traffic, at most."""

Floats = NDArray[np.float32]
Timed = dict[str, float]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.he")
    parser.add_argument("--passes", type=int, default=5, help="runs of each; default: %(default)s")
    parser.add_argument("--parameters", type=int, default=1_000_000, help="default: %(default)s")
    return parser.parse_args()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that something takes, and its result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def ours(packing: Packing) -> Callable[[Floats], Timed]:
    """Return a function that runs one pass of our code."""
    key = Key.create(packing.parameters)

    def run(values: Floats) -> Timed:
        total = EncryptedSum(packing.parameters, ADDED)
        encrypting, adding = [], []
        for _ in range(ADDED):
            seconds, sent = timed(partial(encrypt, packing, key, values, HEAVIEST))
            encrypting.append(seconds)
            adding.append(timed(partial(total.add, sent, "client"))[0])
        answer = total.total()
        seconds, found = timed(partial(decrypt, packing, key, answer))
        return {
            "encrypt_s": statistics.median(encrypting),
            "add_s": statistics.median(adding[1:]),
            "decrypt_s": seconds,
            "bytes": sent.nbytes,
            "error": float(np.abs(found.values - values).max()),
        }

    return run


def nvflare() -> Callable[[Floats], Timed]:
    """Return a function that runs one pass of what NVFlare does."""
    tenseal = library()
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40], n_threads=1
    )
    context.global_scale = 2.0**40

    def sealed(values: Floats) -> list[bytes]:
        # In pieces of the slots, as TenSEAL cuts longer vectors itself, and says so on the screen.
        pieces = [values[i : i + 4096].tolist() for i in range(0, len(values), 4096)]
        return [tenseal.ckks_vector(context, piece).serialize() for piece in pieces]

    def added(mine: list[Any] | None, theirs: list[bytes]) -> list[Any]:
        read = [tenseal.ckks_vector_from(context, piece) for piece in theirs]
        return read if mine is None else [a.add_(b) for a, b in zip(mine, read, strict=True)]

    def run(values: Floats) -> Timed:
        total: list[Any] | None = None
        encrypting, adding = [], []
        for _ in range(ADDED):
            seconds, sent = timed(partial(sealed, values))
            encrypting.append(seconds)
            seconds, total = timed(partial(added, total, sent))
            adding.append(seconds)
        seconds, found = timed(lambda: np.concatenate([piece.decrypt() for piece in total or []]))
        return {
            "encrypt_s": statistics.median(encrypting),
            "add_s": statistics.median(adding[1:]),
            "decrypt_s": seconds,
            "bytes": sum(map(len, sent)),
            "error": float(np.abs(found / ADDED - values).max()),
        }

    return run


def contenders(parameters: int) -> dict[str, Callable[[Floats], Timed]]:
    """Return what takes part, by name."""
    cohort = Cohort(parameters, CLIENTS, HEAVIEST)
    return {
        "bfv": ours(ExactPacking(cohort, Quantizer(1.0, 24))),
        "bfv, two values a slot": ours(ExactPacking(cohort, Quantizer(1.0, 16), per_slot=2)),
        "ckks 8192 [60, 40, 40]": ours(ApproximatePacking(cohort, 1.0)),
        "ckks 4096 [54, 54]": ours(
            ApproximatePacking(cohort, 1.0, degree=4096, coefficient_bits=(54, 54))
        ),
        "nvflare": nvflare(),
    }


def summary(name: str, runs: list[Timed], plain: int) -> dict[str, Any]:
    """Return the medians of all passes of one contender, and whether they are what they should."""
    facts: dict[str, Any] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    facts["times_traffic"] = facts["bytes"] / plain
    if name in TARGETS:
        seconds, traffic = TARGETS[name]
        facts["target"] = {"encrypt_s": seconds, "times_traffic": traffic}
        facts["met"] = facts["encrypt_s"] <= seconds and facts["times_traffic"] <= traffic
    return facts


def show(name: str, facts: dict[str, Any]) -> None:
    """Print a line of the table."""
    verdict = {None: "", True: "met", False: "MISSED"}[facts.get("met")]
    print(
        f"{name:24} {facts['encrypt_s']:9.3f} {facts['bytes'] / 1e6:8.1f} "
        f"{facts['times_traffic']:8.2f} {facts['add_s']:8.3f} {facts['decrypt_s']:9.3f} "
        f"{facts['error']:9.1e}  {verdict}"
    )


def main() -> None:
    """Run all, and report."""
    told = arguments()
    values = np.random.default_rng(0).normal(0, 0.1, told.parameters).astype(np.float32)
    racing = contenders(told.parameters)
    runs: dict[str, list[Timed]] = {name: [] for name in racing}
    for _ in range(told.passes):
        for name, run in racing.items():
            runs[name].append(run(values))
    plain = values.nbytes
    facts = {name: summary(name, all_, plain) for name, all_ in runs.items()}
    print(
        f"{'':24} {'encrypt s':>9} {'MB':>8} {'× plain':>8} {'add s':>8} {'decrypt s':>9} "
        f"{'error':>9}  target"
    )
    for name, fact in facts.items():
        show(name, fact)
    RESULTS.write_text(
        json.dumps({"parameters": told.parameters, "plain_bytes": plain, "runs": facts}, indent=2)
        + "\n"
    )


if __name__ == "__main__":
    main()
