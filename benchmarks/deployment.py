"""Seconds per plain round on four SuperNodes, and whose processor they take.

    python -m benchmarks.deployment [--rounds N] [--into NAME] [--tls] [OVERRIDE ...]

A SuperLink and four SuperNodes, each a hospital with its own file, on this machine's loopback and
all on its cores. The first round, in which processes start, is left out. Processor seconds are
those of all processes of a kind, per round, so they hardly depend on what else the machine does.
With ``--into`` the figures go into ``benchmarks/results/deployment.json`` under that name, beside
those that are there.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.data import hospitals
from benchmarks.runs import ROOT, read_results, write_results
from server_app.engines.superlink import program
from server_app.evidence import files
from tests.flower import deployment, federation

POLICY = """\
tasks: [healthcare]
privacy: {mechanism: any}
aggregation: {mechanism: any}
metrics: {allowed: [any], min_rows: 1, sums: true}
"""
KINDS = {
    "flower-superlink": "SuperLink",
    "flwr-serverapp": "ServerApp",
    "forkserver": "ClientApps",
    "supernode": "SuperNodes",
}
"""What a process's command line holds, and what it is."""


def main() -> None:
    """Run, and print what a round takes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deployment")
    parser.add_argument("--rounds", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--into", help="name of these figures")
    parser.add_argument("--tls", action="store_true", help="with TLS, node keys and policies")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with started(folder, tls=args.tls) as environment:
            facts = watched(folder / "run", environment, args.rounds, args.overrides)
    print(facts)
    if args.into:
        name = args.into + ("-tls" if args.tls else "")
        print(write_results("deployment", read_results("deployment") | {name: facts}))


@contextmanager
def started(folder: Path, *, tls: bool) -> Iterator[dict[str, str]]:
    """Start a SuperLink named ``silos`` and a SuperNode for each hospital."""
    paths = {path.name.split(".")[1]: path for path in hospitals.main(folder / "data")}
    if tls:
        with federation(folder / "flower", paths, POLICY) as (environment, _):
            yield environment
    else:
        configs = [f'data="{path}"' for path in paths.values()]
        with deployment(folder / "flower", configs) as environment:
            yield environment


def watched(
    directory: Path, environment: Mapping[str, str], rounds: int, told: Sequence[str]
) -> dict[str, Any]:
    """Run on the SuperNodes; return seconds of wall and of processors per round."""
    command = [
        program("fedproof"), "federation=remote", "federation.superlink=silos",
        "federation.nodes=4", f"rounds={rounds}", "profile=true", *told,
        f"hydra.run.dir={directory}",
    ]  # fmt: skip
    metrics = directory / files.METRICS
    with subprocess.Popen(
        command, cwd=ROOT, env=dict(environment), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        before: dict[str, float] = {}
        after, done = before, 0
        while process.poll() is None:
            if (now := len(files.read_lines(metrics))) > done:
                done, after = now, processors()
                before = before or after
            time.sleep(0.02)
        assert process.returncode == 0, process.communicate()[0]
    lines = files.read_lines(metrics)[1:]
    seconds = [line["seconds"] for line in lines]
    spent = {kind: (after[kind] - before[kind]) / len(lines) for kind in sorted(after)}
    stages: dict[str, float] = defaultdict(float)
    for line in lines:
        for stage, taken in line["profile"].items():
            stages[stage] += taken / len(lines)
    return {
        "seconds": seconds,
        "median": statistics.median(seconds),
        "processor_seconds": {kind: round(s, 3) for kind, s in spent.items()},
        "stages": {stage: round(s, 4) for stage, s in stages.items()},
        "load": round(psutil.getloadavg()[0], 1),
    }


def processors() -> dict[str, float]:
    """Return the processor seconds of this process's descendants so far, by kind."""
    found: dict[str, float] = defaultdict(float)
    for process in psutil.Process().children(recursive=True):
        try:
            line, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        kind = next((name for mark, name in KINDS.items() if mark in line), "the rest")
        found[kind] += times.user + times.system
    return found


if __name__ == "__main__":
    main()
