"""Each promise of the docs names the test that attacks it, as ``[test: path::name]``."""

from __future__ import annotations

import ast
import re

import pytest

from tests.conftest import ROOT

PAGES = ("docs/privacy.md", "docs/threat-model.md")
_REFERENCE = re.compile(r"\[test: ([^\]]+)\]")


def references(page: str) -> list[str]:
    """Return the tests that a page names; one bracket may name several, with commas."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [name.strip() for found in _REFERENCE.findall(text) for name in found.split(",")]


def is_test(reference: str) -> bool:
    """Tell whether there is such a file, and such a test function in it."""
    path, _, name = reference.partition("::")
    file = ROOT / path
    if not (file.is_file() and file.name.startswith("test_") and name.startswith("test_")):
        return False
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in ast.walk(tree))


@pytest.mark.parametrize("page", PAGES)
def test_what_the_docs_name_is_there(page):
    absent = [reference for reference in references(page) if not is_test(reference)]
    assert not absent, f"{page} names tests that are not there"


def test_names_that_are_none_are_seen():
    assert is_test("tests/adversary/test_promises.py::test_names_that_are_none_are_seen")
    assert not is_test("tests/adversary/test_promises.py::test_that_nobody_wrote")
    assert not is_test("tests/adversary/nothing.py::test_that_nobody_wrote")
    assert not is_test("tests/adversary/test_promises.py")
