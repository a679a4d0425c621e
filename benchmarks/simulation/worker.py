"""What the contenders' programs share: their arguments, and one JSON line per round."""

from __future__ import annotations

import argparse
import json
import time

from benchmarks.simulation.workloads import WORKLOADS


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the arguments that every contender takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=3)
    return parser


def tell(number: int, seconds: float) -> None:
    """Print what a round took."""
    print(json.dumps({"round": number, "seconds": round(seconds, 5)}), flush=True)


class Laps:
    """Tells rounds by the time from the end of one to the end of the next."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start round 1."""
        self._number = 0
        self._since = time.perf_counter()

    def lap(self) -> None:
        """End a round."""
        now = time.perf_counter()
        self._number += 1
        tell(self._number, now - self._since)
        self._since = time.perf_counter()
