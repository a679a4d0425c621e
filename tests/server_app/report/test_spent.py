"""What a report says of bytes and time, against the same by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conf.compose import compose
from conf.digest import plain
from server_app.evidence import files
from server_app.report.load import RunFiles
from server_app.report.parts import duration, gained
from server_app.report.spent import communication_section, measured_of

LINE = {"answered": ["a", "b", "c", "d"], "bytes_down": 4_000_000, "bytes_up": 2_000_000,
        "seconds": 8.0, "failed": {}}  # fmt: skip


def run(directory: Path, *overrides: str, lines: int = 10) -> RunFiles:
    """Ten rounds of 4 of 40 clients: each got 1 MB and sent 0.5 MB in a round."""
    told = ("link.up_mbps=1", "link.down_mbps=8", "link.latency_ms=100", "federation.workers=2")
    settings = plain(compose((*told, *overrides)))
    (directory / files.CONFIG).write_text(json.dumps(settings))
    (directory / files.SUMMARY).write_text(json.dumps({"clients": 40}))
    rows = [json.dumps(LINE | {"round": number}) for number in range(1, lines + 1)]
    (directory / files.METRICS).write_text("\n".join(rows))
    return RunFiles(directory)


def table(run: RunFiles) -> dict[str, tuple[str, str]]:
    section = communication_section(run)
    assert section is not None
    (projection,) = section.tables
    return {name: (formula, value) for name, formula, value in projection.rows}


def test_the_projection_by_hand(tmp_path: Path) -> None:
    assert table(run(tmp_path)) == {
        "latency of a round": ("2 × 100 ms", "0.2 s"),
        # 8 Mbit at 8 Mbit/s, and 4 Mbit at 1 Mbit/s.
        "download": ("1,000,000 B × 8 / 8 Mbit/s", "1 s"),
        "upload": ("500,000 B × 8 / 1 Mbit/s", "4 s"),
        # Two processes shared the 8 s of 4 clients.
        "computing, as measured here": ("", "4 s"),
        "a round takes": ("sum of the above", "9.2 s"),
        "all rounds take": ("10 × 9.2 s", "92 s"),
        "clients in a round": ("40 × 0.1", "4 clients"),
        "through the server, a round": ("4 × (1,000,000 B + 500,000 B)", "6.0 MB"),
        "through the server, all rounds": ("10 × 6,000,000 B", "60.0 MB"),
    }


def test_the_projection_to_millions_of_clients(tmp_path: Path) -> None:
    told = table(run(tmp_path, "link.clients=5000000"))
    assert told["a round takes"] == ("sum of the above", "9.2 s")
    assert told["clients in a round"] == ("5,000,000 × 0.1", "500,000 clients")
    # 500,000 × 1.5 MB.
    assert told["through the server, a round"][1] == "750.0 GB"
    assert told["through the server, all rounds"] == ("10 × 750,000,000,000 B", "7.5 TB")


def test_silos_compute_at_the_same_time(tmp_path: Path) -> None:
    remote = run(tmp_path, "federation=remote", "federation.superlink=x")
    measured = measured_of(remote, remote.curves[0])
    assert measured is not None and measured.seconds == 8.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0023, "2.3 ms"), (0.2, "0.2 s"), (72.04, "72 s"), (600, "10 min"), (36_000, "10 h"),
     (864_000_000, "10,000.0 days")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_gains_have_units_and_bounds() -> None:
    value = {"mean": -0.079, "low": -0.2281, "high": 0.07}
    assert gained(value, "accuracy") == "-7.9 points (-22.8 to +7.0)"
    assert gained(value, "r2") == "-0.0790 (-0.2281 to +0.0700)"
    once = {"mean": 0.05, "low": None, "high": None}
    assert gained(once, "auroc") == "+5.0 points"
    assert gained(None, "loss") == "–"
