"""``fedproof report RUN_DIR [RUN_DIR ...]``: rebuild a report, or lay several runs side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from conf.errors import FedproofError
from server_app.evidence import files
from server_app.report.page import write_report
from server_app.report.several import write_side_by_side


def main(arguments: Sequence[str]) -> None:
    """Write the report of one run into its directory, or of several into the current one.

    Raises
    ------
    FedproofError
        If a directory holds no run.
    """
    parser = argparse.ArgumentParser(prog="fedproof report", description=__doc__)
    parser.add_argument("directories", type=Path, nargs="+", metavar="RUN_DIR",
                        help="of a run, a comparison, or a sweep of them")  # fmt: skip
    parser.add_argument("--output", type=Path, help="file for several runs: default report.html")
    told = parser.parse_args(arguments)
    runs = [run for directory in told.directories for run in runs_in(directory)]
    if len(runs) == 1:
        print(write_report(runs[0]))
        return
    sweep = told.directories[0] if len(told.directories) == 1 else Path()
    print(write_side_by_side(runs, told.output or sweep / files.REPORT))


def runs_in(directory: Path) -> list[Path]:
    """Return the run that a directory is, or the runs of a sweep in it.

    Raises
    ------
    FedproofError
        If there is none.
    """
    if _is_run(directory):
        return [directory]
    found = [d for d in directory.glob("*") if _is_run(d)] if directory.is_dir() else []
    if not found:
        raise FedproofError(f"{directory} holds no run of fedproof: give its run directory.")
    return sorted(found, key=lambda d: (len(d.name), d.name))


def _is_run(directory: Path) -> bool:
    return any((directory / name).is_file() for name in (files.RUN, files.OUTCOME))
