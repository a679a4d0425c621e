"""No server tells two silos apart that differ in one record; the harness sees when one could."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from flwr.app import RecordDict

from task.wire import Cohort
from tests.adversary import worlds
from tests.adversary.coupling import COUNT, STATISTICS, SUM, UPDATE, VECTOR
from tests.adversary.neighbours import Report, campaign
from tests.adversary.worlds import WORLDS, Silo

FEW = 4
FLAT = [world for world in WORLDS if world.name == "record_dp, flat"]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one; thousands of refusals are not logged."""
    shared = Path("/dev/shm")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else tmp_path) as folder:
        yield Path(folder)
    logging.disable(logging.NOTSET)


def test_silos_that_differ_in_one_record_answer_alike(memory):
    report = campaign(FEW * len(WORLDS), memory, block=FEW)
    assert not report.skipped, "a world's run is refused: nothing was tried there"
    assert set(report.worlds) == {world.name for world in WORLDS}
    assert {SUM, UPDATE, VECTOR, COUNT, STATISTICS} <= set(report.releases)
    assert report.answered > report.messages / 3, "most messages are refused: nothing was tried"
    assert not report.found, [str(finding) for finding in report.first.values()]


def _tampered(change: Callable[[Silo, str, RecordDict, RecordDict], RecordDict]) -> Any:
    """Return a silo's way to answer whose answers somebody changes."""
    ask = Silo.ask

    def answer(
        self: Silo, kind: str, content: RecordDict, overrides: str, run: int = 1
    ) -> RecordDict:
        return change(self, kind, content, ask(self, kind, content, overrides, run))

    return patch.object(worlds.Silo, "ask", answer)


def _rows_told(silo: Silo, kind: str, _: RecordDict, answer: RecordDict) -> RecordDict:
    """Tell how many rows there are, to those who only ask."""
    if kind != "query":
        return answer
    cohort = Cohort.unpack(answer)
    return Cohort(cohort.parts, cohort.errors, {**cohort.header, "train": len(silo.lines)}).pack()


def _fails_by_rows(silo: Silo, kind: str, _: RecordDict, answer: RecordDict) -> RecordDict:
    """Fail if all ages together are an odd number."""
    ages = sum(int(line.split(",")[0]) for line in silo.lines)
    cohort = Cohort.unpack(answer)
    if kind != "train" or ages % 2 == 0:
        return answer
    return Cohort({}, dict.fromkeys(cohort.parts, "it failed"), cohort.header).pack()


@contextmanager
def _longer_gradients() -> Iterator[None]:
    """Clip nothing."""
    import torch

    from task.privacy import dpsgd

    def factors(self: Any, norms: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(norms[:, :1])

    with patch.object(dpsgd._Clipping, "factors", factors):
        yield


@contextmanager
def _half_noise() -> Iterator[None]:
    from task.privacy import dpsgd

    with patch.object(dpsgd._Clipping, "deviation", property(lambda self: self.limit)):
        yield


@pytest.mark.parametrize(
    ("plant", "where"),
    [
        (lambda: _tampered(_rows_told), "header/train"),
        (lambda: _tampered(_fails_by_rows), "errors/cleveland"),
        (_longer_gradients, "sum of gradients"),
        (_half_noise, "ledger"),
    ],
    ids=["row counts", "whether it fails", "no clipping", "half the noise"],
)
def test_planted_faults_are_found(memory, plant, where):
    with plant():
        report: Report = campaign(30, memory, worlds=FLAT, block=10)
    assert where in {finding.where for finding in report.first.values()}
