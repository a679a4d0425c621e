"""Seconds per round on four SuperNodes, in clear and in secure sums.

    python -m benchmarks.secure_rounds [--rounds N]

A SuperLink and four hospitals on this machine's loopback, all on its cores: Flower starts a process
per message, and polls. Both runs use the same deployment, one after the other; the first round,
which starts most, is left out. Writes ``benchmarks/results/secure_rounds.json``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from benchmarks.data import hospitals
from benchmarks.runs import write_results
from server_app.evidence import files
from task.identity import Identity
from tests.flower import deployment, fedproof

RUNS = {"in clear": (), "aggregation=secagg": ("aggregation=secagg",)}


def main() -> None:
    """Run both, and print what a round takes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.secure_rounds")
    parser.add_argument("--rounds", type=int, default=4, help="default: %(default)s")
    rounds = parser.parse_args().rounds
    told = ("federation=remote", "federation.superlink=silos", "federation.nodes=4")
    results = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with deployment(folder / "flower", silos(folder)) as environment:
            for number, (name, more) in enumerate(RUNS.items()):
                directory = folder / f"run-{number}"
                done = fedproof(
                    *told, *more, f"rounds={rounds}", f"hydra.run.dir={directory}",
                    environment=environment,
                )  # fmt: skip
                assert done.returncode == 0, done.stdout + done.stderr
                seconds = [r["seconds"] for r in files.read_lines(directory / files.METRICS)]
                results[name] = {"seconds": seconds, "median": statistics.median(seconds[1:])}
                print(f"{name}: {results[name]['median']:.1f} s a round {seconds}", flush=True)
    plain, secure = (results[name]["median"] for name in RUNS)
    print(f"{secure / plain:.2f} rounds in clear")
    print(write_results("secure_rounds", {**results, "ratio": secure / plain}))


def silos(folder: Path) -> list[str]:
    """Give each hospital its data, key and roster; return the node configs."""
    configs, lines = [], []
    for path in hospitals.main(folder / "data"):
        name = path.name.split(".")[1]
        identity = Identity()
        identity.write(folder / f"{name}.key")
        lines.append(f"{identity.public.hex()} {name}\n")
        configs.append(
            f'data="{path}" identity="{folder / name}.key" roster="{folder / "roster"}" '
            f'state="{folder / name}"'
        )
    (folder / "roster").write_text("".join(lines), encoding="utf-8")
    return configs


if __name__ == "__main__":
    main()
