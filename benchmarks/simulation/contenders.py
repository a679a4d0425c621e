"""Who is timed, and how each is started."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.simulation import environments
from benchmarks.simulation.workloads import PROCESSES


def this_python() -> Path:
    """Return the Python of Fedproof's environment."""
    return Path(sys.executable)


@dataclass(frozen=True)
class Contender:
    """A program that trains a workload and prints one JSON line per round.

    Attributes
    ----------
    title : str
        What tables call it.
    module : str
        Of this package; takes the workload and ``--rounds``.
    options : tuple of str
        Further arguments of the module.
    launcher : tuple of str
        Arguments of Python before ``-m module``.
    python : callable
        Returns the Python to run it with; may install what it needs first.
    """

    title: str
    module: str
    options: tuple[str, ...] = ()
    launcher: tuple[str, ...] = ()
    python: Callable[[], Path] = this_python

    def command(self, workload: str, rounds: int) -> list[str]:
        """Return the command that trains `rounds` rounds.

        Raises
        ------
        FedproofError
            If what it needs cannot be installed.
        """
        return [
            str(self.python()), *self.launcher, "-m", f"{__package__}.{self.module}", workload,
            "--rounds", str(rounds), *self.options,
        ]  # fmt: skip


OURS = "fedproof-local"
LIMIT = "limit"
_TORCHRUN = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}")

CONTENDERS = {
    LIMIT: Contender("GEMM limit", "gemm_limit"),
    "raw-2": Contender("raw loop, 2 processes", "raw_loop", ("--processes", str(PROCESSES))),
    "raw-1": Contender("raw loop, 1 process", "raw_loop"),
    OURS: Contender("fedproof local", "fedproof"),
    "fedproof-flower": Contender("fedproof flower", "fedproof", ("--federation", "flower")),
    "pfl-2": Contender(
        "pfl, 2 processes", "pfl_research", launcher=_TORCHRUN, python=environments.pfl
    ),
    "pfl-1": Contender("pfl, 1 process", "pfl_research", python=environments.pfl),
    "flower-default": Contender("Flower default", "flower_default"),
}
