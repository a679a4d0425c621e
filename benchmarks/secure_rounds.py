"""Seconds per round on four SuperNodes, in clear and in secure sums, and how far models are apart.

    python -m benchmarks.secure_rounds [--task TASK] [--rounds N]

A SuperLink and four SuperNodes on this machine's loopback, all on its cores: Flower starts a
process per message, and polls. With task=healthcare each is a hospital with its own file, key and
roster, with others each serves one of four clients. All runs use the same deployment, one after
the other; the first round, which starts most, is left out of the median where there are more.
Writes ``benchmarks/results/secure_rounds-TASK.json``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.data import hospitals
from benchmarks.runs import write_results
from server_app.evidence import files
from task.identity import Identity
from tests.flower import deployment, fedproof

RUNS = ("none", "secagg", "he")
DEALT = ("partition=iid", "federation.clients=4", "federation.fraction=1", "train.steps=20")
"""What is told where SuperNodes have no data of their own."""


def main() -> None:
    """Run all, and print what a round takes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.secure_rounds")
    parser.add_argument("--task", default="healthcare", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    args = parser.parse_args()
    own = args.task == "healthcare"
    told = (f"task={args.task}", *(() if own else DEALT), f"rounds={args.rounds}")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        configs = list(silos(folder).values()) if own else dealt(folder)
        with deployment(folder / "flower", configs) as environment:
            for name in RUNS:
                directory = folder / f"run-{name}"
                seconds = timed(directory, environment, (*told, f"aggregation={name}"))
                results[name] = facts = {"seconds": seconds, "median": median(seconds)}
                if name != "none":
                    facts["rounds_in_clear"] = facts["median"] / results["none"]["median"]
                    facts |= apart(folder / "run-none", directory)
                print(f"aggregation={name} ·", facts, flush=True)
    print(write_results(f"secure_rounds-{args.task}", results))


def timed(directory: Path, environment: Mapping[str, str], told: tuple[str, ...]) -> list[float]:
    """Run on the SuperNodes; return the seconds of each round."""
    done = fedproof(
        "federation=remote", "federation.superlink=silos", "federation.nodes=4", *told,
        f"hydra.run.dir={directory}", environment=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return [line["seconds"] for line in files.read_lines(directory / files.METRICS)]


def median(seconds: list[float]) -> float:
    """Return the median, of rounds after the first if there are any."""
    return statistics.median(seconds[1:] or seconds)


def apart(clear: Path, hidden: Path) -> dict[str, float]:
    """Return how far two models are apart, beside the error that the run tells of a round."""
    one, other = load_file(clear / files.MODEL), load_file(hidden / files.MODEL)
    differences = ((one[key] - other[key]).to(torch.float64).abs().max() for key in one)
    told = files.read_json(hidden / files.SUMMARY)["secure"]["error"]
    return {"weights_apart": max(map(float, differences)), "told_error_per_round": told}


def dealt(folder: Path) -> list[str]:
    """Return the node configs of four SuperNodes that serve a client each."""
    names = [f"client-{i}" for i in range(4)]
    keys = introduced(folder, names)
    return [f"partition-id={i} num-partitions=4 {keys[name]}" for i, name in enumerate(names)]


def silos(folder: Path) -> dict[str, str]:
    """Return the node config of each hospital, with its own file."""
    paths = {path.name.split(".")[1]: path for path in hospitals.main(folder / "data")}
    keys = introduced(folder, list(paths))
    return {name: f'data="{path}" {keys[name]}' for name, path in paths.items()}


def introduced(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Write each client's key and the roster of all; return the node configs that name them."""
    lines = []
    for name in names:
        identity = Identity()
        identity.write(folder / f"{name}.key")
        lines.append(f"{identity.public.hex()} {name}\n")
    (folder / "roster").write_text("".join(lines), encoding="utf-8")
    return {
        name: f'identity="{folder / name}.key" roster="{folder / "roster"}" state="{folder / name}"'
        for name in names
    }


if __name__ == "__main__":
    main()
