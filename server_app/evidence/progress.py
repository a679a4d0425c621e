"""What the user sees while a run goes on, and the table at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from server_app.evidence.events import Event
from server_app.evidence.tables import (
    budget_table,
    budget_text,
    client_table,
    human_bytes,
    profile_table,
    result_table,
)

PERIOD = 2.0
"""Seconds between lines where there is no terminal to draw a bar on."""


class Progress:
    """Watches a run: a live bar on a terminal, a line now and then elsewhere.

    Parameters
    ----------
    run_dir : Path
        Where the run's files are, for the table at the end.
    brief : bool
        No table at the end: the run is one of several.
    """

    def __init__(self, run_dir: Path, *, brief: bool = False) -> None:
        self._run_dir = run_dir
        self._brief = brief
        self._console = Console(highlight=False)
        self._bar = Bar(
            TextColumn("round"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._job: TaskID | None = None
        self._metric = "accuracy"
        self._rounds = 0
        self._bytes = 0
        self._seconds: list[float] = []
        self._last = time.monotonic()
        self._printed = 0.0

    def __enter__(self) -> Self:
        """Start drawing."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop drawing, whatever happened."""
        self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Show one event of the run."""
        show = {
            "start": self._start, "round": self._round, "stage": self._stage,
            "summary": self._summary,
        }  # fmt: skip
        if handler := show.get(event["event"]):
            handler(event)

    def _start(self, facts: Mapping[str, Any]) -> None:
        self._metric, self._rounds = facts["metric"], facts["rounds"]
        self._last = time.monotonic()
        rows = f"{facts['train_rows']} training rows, {facts['test_rows']} held out"
        if facts["train_rows"] is None:
            rows = f"{facts['aggregation']}: {facts['promise']}"
        self._console.print(
            f"{facts['clients']} clients · {rows} · {facts['parameters']} parameters"
        )
        for reason in facts["refused"]:
            self._warn(f"a node takes no part: {reason}")
        if facts["done"]:
            self._console.print(f"resumed after round {facts['done']}")
        self._job = self._bar.add_task("", total=self._rounds, completed=facts["done"])

    def _round(self, line: Mapping[str, Any]) -> None:
        for client, reason in {**line["failed"], **line.get("evaluation_failed", {})}.items():
            self._warn(f"round {line['round']}: {client}: {reason}")
        self._bytes += line["bytes_down"] + line["bytes_up"]
        now = time.monotonic()
        # A secret round does not tell how long its training took.
        self._seconds.append(now - self._last if line.get("secret") else line["seconds"])
        self._last = now
        text = self._describe(line)
        if self._job is not None:
            self._bar.update(self._job, completed=line["round"], description=text)
        last = line["round"] == self._rounds
        due = last or len(self._seconds) == 1 or time.monotonic() - self._printed >= PERIOD
        if due and not self._console.is_terminal:
            self._printed = time.monotonic()
            left = (self._rounds - line["round"]) * sum(self._seconds) / len(self._seconds)
            self._console.print(
                f"round {line['round']}/{self._rounds} · {text} · ETA {left:.0f} s", soft_wrap=True
            )

    def _warn(self, text: str) -> None:
        """Print what may quote a client: its brackets are no markup."""
        self._console.print(text, style="yellow", markup=False)

    def _describe(self, line: Mapping[str, Any]) -> str:
        parts = [f"{len(line['answered'])}/{len(line['sampled'])} clients"]
        if line.get("secret"):
            parts = ["secret cohort"]
        if "loss" in line["train"]:
            parts.append(f"loss {line['train']['loss']:.4f}")
        value = line.get("held_out", {}).get(self._metric)
        if value is not None:
            parts.append(f"{self._metric} {value:.4f}")
        if privacy := line.get("privacy"):
            parts.append(budget_text(privacy))
        return " · ".join([*parts, human_bytes(self._bytes)])

    def _stage(self, stage: Mapping[str, Any]) -> None:
        """Say what is done after the last round."""
        self._console.print(stage["text"], soft_wrap=True)

    def _summary(self, summary: Mapping[str, Any]) -> None:
        self._bar.stop()
        if self._brief:
            return
        tables = (
            client_table(self._run_dir, summary),
            budget_table(summary.get("privacy")),
            profile_table(self._run_dir),
        )
        for table in tables:
            if table is not None:
                self._console.print(table)
        self._console.print(result_table(summary))
        self._console.print(f"run directory: {self._run_dir}", soft_wrap=True)
