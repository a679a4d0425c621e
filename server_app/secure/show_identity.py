"""``fedproof identity KEY`` and ``fedproof roster FILE``: who the clients of a federation are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from conf.errors import FedproofError
from server_app.deploy.ignored import keep_from_git
from task.atomic import make_folder
from task.identity import Identity, fingerprint, read_roster


def identity(arguments: Sequence[str]) -> None:
    """Make a silo's signing key, unless there is one; print its line for the others' rosters.

    Raises
    ------
    FedproofError
        If the file holds something else, or cannot be written.
    """
    parser = argparse.ArgumentParser(prog="fedproof identity", description=identity.__doc__)
    parser.add_argument("path", type=Path, help="file of the key, which stays at the silo")
    parser.add_argument("name", nargs="?", default="NAME", help="of the client")
    told = parser.parse_args(arguments)
    if not told.path.exists():
        try:
            make_folder(told.path.parent)
            keep_from_git(told.path)
            Identity().write(told.path)
        except OSError as error:
            raise FedproofError(f"{told.path} cannot be written ({error.strerror}).") from None
    print(f"{Identity.read(told.path).public.hex()} {told.name}")


def roster(arguments: Sequence[str]) -> None:
    """Print the fingerprint of a roster, for operators to compare, and whom it holds.

    Raises
    ------
    FedproofError
        If it cannot be read.
    """
    parser = argparse.ArgumentParser(prog="fedproof roster", description=roster.__doc__)
    parser.add_argument("path", type=Path, help="lines of `fedproof identity`, one per client")
    known = read_roster(parser.parse_args(arguments).path)
    print(f"{fingerprint(known)} · {len(known)} clients: {', '.join(sorted(known))}")
