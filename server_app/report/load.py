"""Read a run directory as far as it got: every file may be missing or torn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from conf.errors import FedproofError
from server_app.comparison.measured import Compared, read_seeds, seed_directories
from server_app.comparison.summary import summarize
from server_app.evidence import files

_TAIL = 2_000_000
"""Bytes of ``clients.jsonl`` that are read: its last evaluation is what a report shows."""


@dataclass(frozen=True)
class RunFiles:
    """What a run directory holds.

    Attributes
    ----------
    directory : Path
        Of one run, or of a comparison with a directory per seed.
    """

    directory: Path

    @cached_property
    def run(self) -> dict[str, Any]:
        """``run.json``: overrides, versions, sizes."""
        return self._json(files.RUN)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """``summary.json``; of a comparison, the first seed's."""
        found = self._json(files.SUMMARY)
        if not found and self.seeds:
            return RunFiles(self.seeds[0].directory).summary
        return found

    @cached_property
    def outcome(self) -> dict[str, Any]:
        """``outcome.json``; what it does not say is what the other files show."""
        told = self._json(files.OUTCOME)
        return told or {"ended": "finished" if self.summary else "unknown", "sentence": ""}

    @cached_property
    def comparison(self) -> dict[str, Any] | None:
        """The verdict over the seeds that are finished, if this is a comparison."""
        return summarize(self.directory)

    @cached_property
    def seeds(self) -> list[Compared]:
        """The finished seeds of a comparison, or this run's own baselines."""
        return read_seeds(self.directory)

    @cached_property
    def curves(self) -> list[list[dict[str, Any]]]:
        """The lines of ``metrics.jsonl``, of each run with at least one round."""
        lines = [files.read_lines(d / files.METRICS) for d in seed_directories(self.directory)]
        return [each for each in lines if each]

    @cached_property
    def clients(self) -> list[dict[str, Any]]:
        """Every client's metrics at the last evaluation."""
        path = self.directory / files.CLIENTS
        if not path.is_file():
            return []
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - _TAIL))
            text = file.read().decode(errors="replace")
        lines = text.splitlines()[1 if size > _TAIL else 0 :]
        rows = [row for line in lines if (row := _parsed(line))]
        last = max((row["round"] for row in rows), default=0)
        return sorted((r for r in rows if r["round"] == last), key=lambda r: str(r["client"]))

    @cached_property
    def config(self) -> str:
        """``config.yaml``; of a comparison, the first seed's."""
        for directory in (self.directory, *seed_directories(self.directory)):
            if (path := directory / files.CONFIG).is_file():
                return path.read_text(encoding="utf-8", errors="replace")
        return ""

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The same, read."""
        if not self.config:
            return {}
        from omegaconf import OmegaConf

        values = OmegaConf.to_container(OmegaConf.create(self.config))
        assert isinstance(values, dict)
        return {str(key): value for key, value in values.items()}

    @property
    def overrides(self) -> list[str]:
        """What the user said, without the places where things are."""
        hydra = self.directory / ".hydra" / "overrides.yaml"
        told = self.run.get("overrides")
        if told is None and hydra.is_file():
            told = [line.removeprefix("- ") for line in hydra.read_text().splitlines() if line]
            told = [] if told == ["[]"] else told
        return [o for o in told or [] if o.partition("=")[0] not in ("run_dir", "resume")]

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return files.read_json(self.directory / name)
        except (OSError, FedproofError):
            # A report tells what there is, also of a run that was ended from outside.
            return {}


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "round" in row and "client" in row else None
