"""Virtual environments for contenders that do not fit into Fedproof's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from conf.errors import FedproofError
from server_app.engines.superlink import program

FOLDER = Path(__file__).parent / ".environments"
PFL = "0.6.0"


def pfl() -> Path:
    """Return a Python that has pfl-research, and the torch that Fedproof runs on.

    Raises
    ------
    FedproofError
        If it cannot be installed.
    """
    return python("pfl", [f"pfl=={PFL}", f"torch=={version('torch')}"])


def python(name: str, requirements: Sequence[str]) -> Path:
    """Return the Python of an environment with `requirements`, made anew unless it has them.

    Raises
    ------
    FedproofError
        If uv cannot install them.
    """
    folder = FOLDER / name
    executable = folder / "bin" / "python"
    installed = folder / "requirements.json"
    wanted = json.dumps(list(requirements))
    if installed.exists() and installed.read_text(encoding="utf-8") == wanted:
        return executable
    _uv("venv", "--clear", "--python", sys.executable, str(folder))
    _uv("pip", "install", "--python", str(executable), *requirements)
    installed.write_text(wanted, encoding="utf-8")
    return executable


def _uv(*arguments: str) -> None:
    done = subprocess.run(
        [program("uv"), "--quiet", *arguments], check=False, text=True, capture_output=True
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise FedproofError(f"'uv {arguments[0]}' failed for {arguments[-1]}: {reason.strip()}.")
