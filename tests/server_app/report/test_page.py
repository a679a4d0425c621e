"""Reports of whatever a run directory holds."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from conf.compose import compose
from conf.errors import FedproofError
from server_app.evidence import files
from server_app.report.ending import reported
from server_app.report.page import TEMPLATE, write_report
from server_app.report.show_report import main

SHORT = ("rounds=2", "model.hidden=[4]", "train.epochs=1")


class Text(HTMLParser):
    """The text of a page, and the elements that it consists of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.tags and self.tags[-1][0] in ("td", "th") and data.strip():
            self.rows[-1].append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def report(directory: Path) -> Text:
    page = Text(write_report(directory).read_text(encoding="utf-8"))
    # Every chart has its numbers in a table, and nothing is loaded.
    assert page.count("figure") == page.count("svg")
    assert page.count("details") >= page.count("figure")
    for tag, attributes in page.tags:
        assert tag not in ("script", "img", "iframe"), tag
        for key in ("src", "href", "xlink:href"):
            target = attributes.get(key) or "#"
            assert target.startswith("#") or target == "data:,", (tag, target)
    return page


def test_a_run(federate: Callable[..., Any]) -> None:
    ran = federate(*SHORT)
    page = report(ran.directory)
    held_out = ran.summary["held_out"]["accuracy"]
    assert f"accuracy {held_out:.4f}" in page.text
    for title in ("Learning curves", "Clients", "Communication", "Privacy spent",
                  "Faults and exclusions", "How to reproduce"):  # fmt: skip
        assert title in page.text
    assert "uv run fedproof rounds=2 'model.hidden=[4]' train.epochs=1" in page.text
    assert "compare=true" in page.text and "run_dir" not in page.text.split("All settings")[0]
    assert page.count("figure") == 4
    first = (ran.directory / files.REPORT).read_text()
    assert write_report(ran.directory).read_text() == first


def test_a_comparison_of_one_seed(federate: Callable[..., Any]) -> None:
    page = report(federate(*SHORT, "compare=true").directory)
    assert "What it rests on" in page.text and "How unlike clients are" in page.text
    assert page.count("figure") == 8
    for name in ("cleveland", "hungary", "switzerland", "va"):
        assert page.text.count(name) >= 4


@pytest.mark.parametrize(
    "overrides",
    [("rounds=1",), ("partition=iid", "federation.clients=1"), ("task.test_fraction=0.01",)],
)
def test_small_runs(overrides: tuple[str, ...], federate: Callable[..., Any]) -> None:
    page = report(federate(*SHORT, *overrides).directory)
    assert "Faults and exclusions" in page.text


def test_private_and_secure_runs_say_what_was_spent(federate: Callable[..., Any]) -> None:
    page = report(federate(*SHORT, "privacy=record_dp", "privacy.sigma=2.0").directory)
    assert "ε of each client" in page.text and "ε at most" in page.text
    assert "one record makes it at most e^ε" in page.text
    page = report(federate(*SHORT, "aggregation=secagg").directory)
    assert "smallest sum" in page.text
    assert "of each client" not in page.text


def test_whose_answers_did_not_count_is_told(federate: Callable[..., Any]) -> None:
    poisoned = ("partition=iid", "federation.clients=5", "attack=gaussian", "attack.fraction=0.2")
    ran = federate(*SHORT, *poisoned, "strategy=multikrum", "defence=norm_clip")
    (attacker,) = ran.rounds[-1]["defence"]["excluded"]
    page = report(ran.directory)
    assert "An attack was played: attack=gaussian, by 20 % of the clients." in page.text
    assert "gave a valid answer, though not all counted in full" in page.text
    rows = [row for row in page.rows if row[0] == attacker and "did not count" in row]
    assert [row[:3] for row in rows] == [[attacker, "did not count", "2 of 2"]]
    assert float(rows[0][3].replace(",", "")) > 3.5


def test_secret_cohorts_stay_secret(federate: Callable[..., Any]) -> None:
    secret = ("privacy=client_dp", "privacy.sigma=1.0", "privacy.delta=1e-3")
    told = ("task=synthetic", "task.clients=40", "federation.fraction=0.2", "rounds=2")
    page = report(federate(*told, *secret).directory)
    assert "Who was drawn, and who of them failed, is secret" in page.text
    assert "gave a valid answer" not in page.text


def test_all_failed_interrupted_and_crashed_runs_are_told_honestly(
    federate: Callable[..., Any], tmp_path: Path
) -> None:
    cases = {
        "All failed": (lambda reply: None if reply.metadata.message_type == "train" else reply,
                       FedproofError, "failed after 0 rounds of 2: round 1: 0 of the 4"),
        "interrupted": (_later(KeyboardInterrupt), KeyboardInterrupt,
                        "interrupted after 1 round of 2: figures are those until then"),
        "crashed": (_later(ZeroDivisionError), ZeroDivisionError,
                    "crashed after 1 round of 2 (ZeroDivisionError)"),
    }  # fmt: skip
    for name, (tamper, error, sentence) in cases.items():
        directory = tmp_path / name
        with pytest.raises(error), reported(directory):
            federate(*SHORT, directory=directory, tamper=tamper)
        page = Text((directory / files.REPORT).read_text())
        assert sentence in page.text
        report(directory)


def _later(error: type[BaseException]) -> Callable[[Any], Any]:
    calls = []

    def tamper(reply: Any) -> Any:
        calls.append(reply.metadata.message_type)
        if calls.count("train") == 2:
            raise error
        return reply

    return tamper


def test_nothing_but_a_directory(tmp_path: Path) -> None:
    page = report(tmp_path)
    assert "Nothing was trained" in page.text and "did not say how it ended" in page.text
    (tmp_path / files.METRICS).write_text('{"torn')
    (tmp_path / files.RUN).write_text("{")
    assert "Nothing was trained" in report(tmp_path).text


def test_names_are_escaped(federate: Callable[..., Any]) -> None:
    ran = federate(*SHORT)
    path = ran.directory / files.CLIENTS
    path.write_text(path.read_text().replace("hungary", "<script>alert(1)</script>&x"))
    page = report(ran.directory)
    assert "<script>alert(1)</script>&x" in page.text


def test_several_runs_side_by_side(
    federate: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        federate(*SHORT, *told, directory=tmp_path / "sweep" / str(number)).directory
        for number, told in enumerate((("seed=1",), ("seed=2",), ("seed=1", "train.lr=0.1")))
    ]
    # As Hydra leaves it.
    (tmp_path / "sweep" / "multirun.yaml").write_text("hydra: {}")
    main([str(tmp_path / "sweep")])
    path = Path(capsys.readouterr().out.strip().splitlines()[-1])
    assert path == tmp_path / "sweep" / files.REPORT
    page = Text(path.read_text())
    assert page.count("figure") == 1 and "Best accuracy" in page.text
    assert "runs that differ in nothing but the seed" in page.text
    head, *rows = page.rows
    assert head[:3] == ["run", "seed", "train.lr"] and not {"rounds=2", "model.hidden"} & set(head)
    found = {tuple(row[1:3]): row for row in rows[: len(runs)]}
    default = str(compose(()).train.lr)
    assert set(found) == {("1", default), ("2", default), ("1", "0.1")}
    accuracies = [files.read_json(run / files.SUMMARY)["held_out"]["accuracy"] for run in runs]
    assert [row[3] for row in rows[:3]] == [
        f"accuracy {value:.4f}" for value in sorted(accuracies, reverse=True)
    ]
    main([str(runs[0])])
    assert (runs[0] / files.REPORT).is_file()
    with pytest.raises(FedproofError, match="holds no run of fedproof"):
        main([str(tmp_path / "nowhere")])


def _luminance(colour: str) -> float:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(left: str, right: str) -> float:
    dark, light = sorted((_luminance(left), _luminance(right)))
    return (light + 0.05) / (dark + 0.05)


def test_colours_have_contrast_in_light_in_dark_and_on_paper() -> None:
    import server_app.report

    template = Path(server_app.report.__file__).with_name(TEMPLATE).read_text()
    palettes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", template, re.S)
    ]
    assert len(palettes) == 3
    for colours in palettes:
        # WCAG 2.2, AA: 4.5 for text, 3 for charts; links are drawn in the first series' colour.
        for text in ("ink", "muted", "s1"):
            assert _contrast(colours[text], colours["card"]) >= 4.5, text
            assert _contrast(colours[text], colours["bg"]) >= 4.5, text
        assert _contrast(colours["ink"], colours["note"]) >= 4.5
        for series in ("s1", "s2", "s3", "s4"):
            assert _contrast(colours[series], colours["card"]) >= 3, series
