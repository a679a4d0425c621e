"""Every promise of the privacy documents names the test that attacks it, and that test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("docs/privacy.md", "docs/threat-model.md")
_TABLE = "## What attacks these promises"
_TEST = re.compile(r"`(tests/[\w/]+(?:\.py)?)(?:::(\w+))?`")


def promises(document: str) -> list[tuple[str, str]]:
    """Return the rows of a document's table: promise, and what attacks it."""
    text = (ROOT / document).read_text(encoding="utf-8").partition(_TABLE)[2]
    section = text.partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [(row[0].strip(), row[1].strip()) for row in rows[1:] if not set(row[0]) <= {"-"}]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_promise_names_a_test_that_is_there(document: str) -> None:
    found = promises(document)
    assert len(found) >= 10
    for promise, attack in found:
        named = _TEST.findall(attack)
        assert named, f"nothing attacks '{promise}'"
        for path, function in named:
            assert (ROOT / path).exists(), f"{path} of '{promise}' does not exist"
            if function:
                assert function in functions(ROOT / path), f"{path} has no {function}"


def functions(path: Path) -> set[str]:
    """Return the names of a file's test functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
