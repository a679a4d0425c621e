"""Tests that the documentation names are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"`python -m benchmarks\.(\w+)`")
NAMED = re.compile(r"`(tests/[\w/]+(?:\.py)?)(?:::(\w+))?`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_named_tests_are_there(page):
    for path, name in NAMED.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path
        assert not name or f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), name


def test_each_fault_names_its_test():
    lines = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ")][1:]
    shown = [row.split("|")[3] for row in rows]
    assert len(rows) > 20 and all(NAMED.search(cell) or COMMAND.search(cell) for cell in shown)
    for name in COMMAND.findall("".join(shown)):
        assert (ROOT / "benchmarks" / f"{name}.py").is_file(), name
