"""Reports in headless Chromium, on a desktop and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server_app.report.page import write_report
from server_app.report.several import write_side_by_side
from tests.chromium import PROGRAM, Page, browser
from tests.conftest import run_nodes

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    run_nodes(directory, "compare=true", "rounds=2", "model.hidden=[4]")
    return write_report(directory).resolve()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_is_whole_and_fits(width: int, dark: bool, page: Page, path: Path) -> None:
    page.open(path, width, dark=dark)
    requests = [e for e in page.events if e["method"] == "Network.requestWillBeSent"]
    urls = {e["params"]["request"]["url"] for e in requests}
    assert {u for u in urls if not u.startswith("data:")} == {path.as_uri()}
    complaints = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    assert not [e for e in page.events if e["method"] in complaints]
    page.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.value("document.querySelectorAll('figure').length") == 8
    empty = "svg => svg.getBoundingClientRect().height < 50 || !svg.querySelector('path')"
    assert page.value(f"[...document.querySelectorAll('figure svg')].filter({empty}).length") == 0
    assert page.value("[...document.querySelectorAll('figure')].every(f => f.querySelector('td'))")
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value(_CUT_OFF) == []
    background = page.value("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(16, 19, 22)") is dark


def test_nothing_is_cut_off_on_paper(page: Page, path: Path) -> None:
    # A4 at 96 dots per inch, less margins of a centimetre; paper is never dark.
    page.open(path, 718, dark=True, paper=True)
    page.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    tables = "[...document.querySelectorAll('.scroll')]"
    assert page.value(f"{tables}.length") > 8
    assert page.value(f"{tables}.filter(d => d.scrollWidth > d.clientWidth).length") == 0
    assert page.value("document.documentElement.scrollWidth") <= 718
    assert page.value(_CUT_OFF) == []
    assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_the_verdict_is_what_is_seen_first(page: Page, path: Path) -> None:
    page.open(path, 390)
    assert page.value("document.querySelector('h1').getBoundingClientRect().bottom") < 200
    assert page.value("document.querySelector('.answer').getBoundingClientRect().bottom") < 800


def test_labels_of_runs_side_by_side_are_whole(page: Page, path: Path, tmp_path: Path) -> None:
    run_nodes(tmp_path / "other", "rounds=2", "strategy=fedprox", "model.hidden=[4]")
    several = write_side_by_side([path.parent, tmp_path / "other"], tmp_path / "several.html")
    page.open(several, 390)
    assert page.value(_CUT_OFF) == []
    labels = page.value("[...document.querySelectorAll('svg text')].map(t => t.textContent)")
    assert {"fedprox", "fedavg"} <= set(labels)


_CUT_OFF = """
[...document.querySelectorAll('figure svg')].flatMap(svg => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => {
    const r = text.getBoundingClientRect();
    return r.left < box.left - 1 || r.right > box.right + 1 || r.top < box.top - 1
      || r.bottom > box.bottom + 1;
  }).map(text => text.textContent);
})
"""
