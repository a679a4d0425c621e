"""What docs/extend.md shows works: its files in a copy of the application, its commands run."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest

from server_app.evidence import files
from tests.flower import ROOT

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "docs" / "extend.md").read_text(encoding="utf-8"))
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the application with the files of the document."""
    copy = tmp_path_factory.mktemp("extended")
    for package in ("conf", "task", "server_app", "client_app"):
        shutil.copytree(ROOT / package, copy / package)
    for kind, text in BLOCKS:
        if kind in ("python", "yaml"):
            place = copy / text.partition("\n")[0].removeprefix("# ")
            assert not place.exists()
            place.write_text(text.partition("\n")[2])
    return copy


def test_there_are_commands():
    assert len(COMMANDS) == 2 and all(line.startswith("fedproof ") for line in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command, extended, tmp_path):
    # The copy, not the installed application.
    start = "import sys; sys.path.insert(0, '.'); from server_app.launch import main; main()"
    arguments = [*shlex.split(command)[1:], "federation.workers=1", f"hydra.run.dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-c", start, *arguments], cwd=extended, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert files.read_json(tmp_path / files.SUMMARY)["held_out"]["auroc"] > 0.9


def test_the_code_is_as_clean_as_ours(extended):
    new = [str(p) for p in extended.rglob("*.py") if not (ROOT / p.relative_to(extended)).exists()]
    assert len(new) == 4
    ruff = [sys.executable, "-m", "ruff"]
    settings = ["--config", str(ROOT / "pyproject.toml")]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [*ruff, *command, *settings, *new], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
