"""Many rounds while processes are killed at random: nothing is lost, and the model is as good.

    python -m benchmarks.soak [--rounds N] [--deployed N] [--seed N]

First in a simulation, whose worker processes are killed every few rounds; then on four SuperNodes,
where it is a process that answers, a whole SuperNode, which is started again, its network for some
seconds, or its clock, by an hour. Either is compared with the same rounds left alone. Writes
``benchmarks/results/soak.json``.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.runs import ROOT, read_results, write_results
from server_app.engines.superlink import program
from server_app.evidence import files
from tests.outage import Federation, four_hospitals, rounds_of

EVERY = (2, 6)
"""Rounds between two kills, at least and at most."""
CUT = 3.0
"""Seconds without network."""
JUMP = 3700.0
"""Seconds that a clock is put back."""


def main() -> None:
    """Run both, and print what became of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--rounds", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--deployed", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed when")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    results = read_results("soak")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if args.rounds:
            results["simulated"] = simulated(folder / "simulated", args.rounds, draw)
            print("simulated ·", results["simulated"], flush=True)
        if args.deployed:
            results["deployed"] = deployed(folder / "deployed", args.deployed, draw)
            print("deployed ·", results["deployed"], flush=True)
    print(write_results("soak", results))


def simulated(folder: Path, rounds: int, draw: random.Random) -> dict[str, Any]:
    """Kill workers of a simulation."""
    directory = folder / "run"
    process = start(directory, f"rounds={rounds}", "federation.workers=2")

    def strike() -> str:
        workers = answering(process.pid)
        if not workers:
            return ""
        draw.choice(workers).kill()
        return "worker"

    struck = disturb(process, directory, strike, draw)
    return compared(directory, rounds, struck, folder / "alone")


def deployed(folder: Path, rounds: int, draw: random.Random) -> dict[str, Any]:
    """Kill processes of SuperNodes, and cut their networks."""
    directory = folder / "run"
    with four_hospitals(folder) as federation:
        process = federation.run(directory, f"rounds={rounds}", "federation.timeout=15")

        def strike() -> str:
            name = draw.choice(sorted(federation.nodes))
            what, how = draw.choice(FAULTS)
            how(federation, name)
            return what

        struck = disturb(process, directory, strike, draw)
    return compared(directory, rounds, struck, folder / "alone")


def kill_answering(federation: Federation, name: str) -> None:
    """Kill the process that answers a SuperNode's messages."""
    for process in answering(federation.nodes[name].pid):
        process.kill()


def kill_node(federation: Federation, name: str) -> None:
    """Kill a SuperNode, and start it again."""
    federation.kill(federation.nodes[name])
    federation.start_node(name)


def cut(federation: Federation, name: str) -> None:
    """Cut a SuperNode's network for a while."""
    federation.networks[name].cut()
    time.sleep(CUT)
    federation.networks[name].heal()


def jump(federation: Federation, name: str) -> None:
    """Put a silo's clock back by an hour, until its SuperNode has ended; start that again."""
    federation.end_by_clock(name, -JUMP)


FAULTS: tuple[tuple[str, Callable[[Federation, str], None]], ...] = (
    ("answering process", kill_answering),
    ("SuperNode", kill_node),
    ("network", cut),
    ("clock", jump),
)


def answering(pid: int) -> list[psutil.Process]:
    """Return the processes that do clients' work, forked from one that a process started."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            if process.ppid() != pid and "forkserver" in " ".join(process.cmdline()):
                found.append(process)
    return found


def start(directory: Path, *told: str) -> subprocess.Popen[str]:
    """Start a run in a simulation."""
    return subprocess.Popen(
        [program("fedproof"), *told, f"hydra.run.dir={directory}"], cwd=ROOT, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def disturb(
    process: subprocess.Popen[str],
    directory: Path,
    strike: Callable[[], str],
    draw: random.Random,
) -> Counter[str]:
    """Strike every few rounds until a run ends; return how often what was struck."""
    struck = Counter[str]()
    due = draw.randint(*EVERY)
    while process.poll() is None:
        if len(rounds_of(directory)) >= due and (what := strike()):
            struck[what] += 1
            print(f"round {len(rounds_of(directory))}: {what}", flush=True)
            due = len(rounds_of(directory)) + draw.randint(*EVERY)
        time.sleep(0.01)
    assert process.returncode == 0, process.communicate()[0]
    return struck


def compared(directory: Path, rounds: int, struck: Counter[str], alone: Path) -> dict[str, Any]:
    """Return what a run lost, beside the same rounds left alone."""
    process = start(alone, f"rounds={rounds}")
    said, _ = process.communicate()
    assert process.returncode == 0, said
    lines = files.read_lines(directory / files.METRICS)
    assert [line["round"] for line in lines] == list(range(1, rounds + 1))
    mine, theirs = (files.read_json(d / files.SUMMARY)["held_out"] for d in (directory, alone))
    models = [(d / files.MODEL).read_bytes() for d in (directory, alone)]
    return {
        "rounds": rounds,
        "seconds": round(sum(line["seconds"] for line in lines), 1),
        "struck": dict(struck),
        "rounds_without_somebody": sum(bool(line["failed"]) or len(line["answered"]) < 4
                                       for line in lines),
        "same_model": models[0] == models[1],
        "held_out": mine,
        "held_out_alone": theirs,
    }  # fmt: skip


if __name__ == "__main__":
    main()
