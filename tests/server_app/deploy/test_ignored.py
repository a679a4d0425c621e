"""Secrets of a federation are nobody else's, and no git add takes them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from server_app.deploy import command
from server_app.secure.show_identity import identity
from task.audit import AuditLog, Receipt
from task.privacy.accounting import Spend
from task.privacy.ledger import Entry, Ledger
from task.store import ClientStore
from tests.server_app.deploy.test_deploy import federation

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is missing")
LATER = ("audit.jsonl", "audit.jsonl.head", "state/secrets/x", "ledgers/a.jsonl", "home/keys",
         "node.key.old", "superlink.db")  # fmt: skip
"""Files that come into a kit once it is used."""


@pytest.fixture
def made(tmp_path: Path) -> Path:
    folder = tmp_path / "fed"
    folder.mkdir(mode=0o755)
    before = os.umask(0o022)
    try:
        command.main(["init", str(federation(folder))])
        command.main(["key", str(folder / "silos" / "a")])
    finally:
        os.umask(before)
    for kit in (folder / "server", folder / "silos" / "a"):
        for name in LATER:
            (kit / name).parent.mkdir(parents=True, exist_ok=True)
            (kit / name).write_text("PRIVATE")
    return folder


def added(folder: Path) -> list[str]:
    """Return what ``git init && git add -A`` takes in a folder."""
    for told in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *told], cwd=folder, check=True, capture_output=True)
    done = subprocess.run(
        ["git", "ls-files"], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("place", [".", "..", "ca", "server", "silos", "silos/a"])
def test_git_takes_no_secret(made: Path, place: str) -> None:
    taken = [made / place / name for name in added(made / place)]
    assert not [path for path in taken if b"PRIVATE" in path.read_bytes()]
    assert not [path for path in taken if path.suffix == ".key"]
    assert any(path.name == "policy.yaml" for path in taken) == (place not in ("ca", "server"))


def test_a_kit_whose_dotfile_was_left_behind(made: Path, tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    kit.mkdir(mode=0o755)
    for path in (made / "silos" / "b").iterdir():
        if not path.name.startswith("."):
            shutil.copy(path, kit)
    command.main(["key", str(kit)])
    assert kit.stat().st_mode & 0o777 == 0o700
    assert not [name for name in added(kit) if name.endswith(".key")]


def test_key_folders_are_their_owners_alone(made: Path, tmp_path: Path) -> None:
    folders = ("ca", "server", "silos", "silos/a", "silos/b")
    assert {(made / name).stat().st_mode & 0o777 for name in folders} == {0o700}
    assert {p.stat().st_mode & 0o777 for p in made.rglob("*.key")} == {0o600}
    with tarfile.open(tmp_path / "kit.tar", "w") as archive:
        archive.add(made / "silos" / "a", "a")
    with tarfile.open(tmp_path / "kit.tar") as archive:
        archive.extractall(tmp_path / "there", filter="tar")
    assert (tmp_path / "there" / "a" / "node.key").stat().st_mode & 0o077 == 0
    assert (tmp_path / "there" / "a").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("is_repository", [True, False])
@pytest.mark.parametrize("place", [".", "keys/of/silos"])
def test_identities_made_anywhere(tmp_path: Path, is_repository: bool, place: str) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "readme").write_text("x")
    if is_repository:
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    for name in ("silo.key", "other.key"):
        identity([str(folder / place / name), "va"])
    assert [name for name in added(folder) if not name.endswith(".gitignore")] == ["readme"]
    if is_repository:
        assert added(folder) == ["readme"]


def test_what_is_kept_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        Ledger(tmp_path / "ledgers" / "a.jsonl").spend(
            Entry("record", Spend(1.0, 0.1, 1), {}), lambda _: None
        )
        AuditLog(tmp_path / "logs" / "audit.jsonl").write(Receipt(0.0, "train"))
        ClientStore(tmp_path / "state", [("abc", 0)]).save("a", 1, {}, 0)
    finally:
        os.umask(before)
    for name in ("ledgers", "logs", "state"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700
