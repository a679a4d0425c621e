"""Writes what a run did into its directory, and announces it."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord
from flwr.supercore.utils import get_flwr_home

from conf.digest import plain
from conf.errors import FedproofError
from conf.schema import Engine, Settings
from server_app import checkpoint
from server_app.evidence import files
from server_app.evidence.events import announce
from server_app.evidence.ownership import own_directory
from server_app.evidence.tensorboard import Scalars

PIECE = 180_000
"""Bytes of a file in one log line, for a command that has no access to this machine's disk."""

_OF_THE_CHOSEN = ("mean", "worst_decile", "standard_error")
"""What a summary repeats of the line of the round whose model was chosen."""


def run_directory(settings: Settings, run_id: int) -> Path:
    """Return where a ServerApp writes: as told, or below ``FEDPROOF_RUNS`` or Flower's home."""
    if settings.run_dir:
        return Path(settings.run_dir).expanduser()
    if settings.resume:
        return Path(settings.resume).expanduser()
    base = os.environ.get("FEDPROOF_RUNS")
    return (Path(base) if base else get_flwr_home() / "fedproof-runs") / str(run_id)


class Recorder:
    """Keeps a run directory.

    Parameters
    ----------
    directory : Path
        Made if it does not exist.
    settings : Settings
        Written to ``config.yaml``.
    overrides : sequence of str
        Written to ``run.json``; resuming and evaluating compose the settings from them.
    """

    def __init__(self, directory: Path, settings: Settings, overrides: Sequence[str]) -> None:
        self.directory = directory
        self._settings = settings
        self._overrides = list(overrides)
        self._totals = {"bytes_down": 0, "bytes_up": 0}
        self._scalars = Scalars(directory / "tensorboard")
        self._remote = settings.federation.engine is Engine.remote
        self._log_lines = settings.federation.engine is not Engine.local

    def start(self, facts: Mapping[str, Any], keep_rounds: int) -> None:
        """Open the directory; lines of rounds that will be done again are dropped."""
        from omegaconf import OmegaConf

        config = OmegaConf.to_yaml(OmegaConf.create(plain(self._settings)))
        run = {
            "overrides": self._overrides,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "server_directory": str(self.directory.resolve()),
            "versions": files.versions(),
            **facts,
        }
        if not self._settings.run_dir:
            # Else the command that told this ServerApp where to write has the directory.
            own_directory(self.directory)
        with self._writing():
            self.directory.mkdir(parents=True, exist_ok=True)
            files.write_text(self.directory / files.CONFIG, config)
            files.write_json(self.directory / files.RUN, run)
            for name in (files.METRICS, files.CLIENTS):
                files.keep_rounds(self.directory / name, keep_rounds)
            (self.directory / files.SUMMARY).unlink(missing_ok=True)
        self._announce("start", {"metric": self._settings.task.metric, **run})
        self._send_file(files.CONFIG)
        self._send_file(files.RUN)

    def round(self, line: Mapping[str, Any]) -> None:
        """Record one round."""
        with self._writing():
            files.append_lines(self.directory / files.METRICS, [line])
        for key in self._totals:
            self._totals[key] += line[key]
        self._scalars.add(line)
        self._announce("round", line)

    def clients(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Record every client's metrics at one evaluation."""
        with self._writing():
            files.append_lines(self.directory / files.CLIENTS, rows)
        if self._remote:
            self._announce("clients", {"rows": list(rows)})

    def lines(self) -> list[dict[str, Any]]:
        """Return what was recorded of the rounds so far."""
        return files.read_lines(self.directory / files.METRICS)

    def baselines(self, facts: Mapping[str, Any]) -> None:
        """Record what the run was compared with."""
        with self._writing():
            files.write_json(self.directory / files.BASELINES, facts)
        self._send_file(files.BASELINES)

    def checkpoint(self, tensors: checkpoint.Tensors, facts: Mapping[str, Any]) -> None:
        """Replace the checkpoint."""
        with self._writing():
            checkpoint.save(self.directory / checkpoint.CHECKPOINT, tensors, facts)

    def finish(self, arrays: ArrayRecord, facts: Mapping[str, Any]) -> None:
        """Write the model and the summary, in this order: a summary means that a model exists."""
        settings = self._settings
        told = {"task": settings.task.name, "model": settings.model.name}
        with self._writing():
            checkpoint.save(self.directory / files.MODEL, checkpoint.to_tensors(arrays), told)
        self._send_file(files.MODEL)
        run = files.read_json(self.directory / files.RUN)
        summary = {
            "task": settings.task.name,
            "model": settings.model.name,
            "strategy": settings.strategy.name,
            "personalization": settings.personalization.name,
            "partition": settings.partition.name,
            "engine": settings.federation.engine.value,
            "seed": settings.seed,
            **facts,
            **self._clients_figures(facts["evaluated_round"]),
            **self._totals,
            "parameters": run["parameters"],
            "digests": run["digests"],
            "versions": run["versions"],
        }
        with self._writing():
            files.write_json(self.directory / files.SUMMARY, summary)
        self._scalars.close()
        self._announce("summary", {**summary, "server_directory": run["server_directory"]})

    def _clients_figures(self, number: int) -> dict[str, Any]:
        """Return the clients' mean, that of the worst tenth of them, and noise in a round."""
        lines = files.read_lines(self.directory / files.METRICS)
        line = next((line for line in lines if line["round"] == number), {})
        return {name: line[name] for name in _OF_THE_CHOSEN if name in line}

    def totals(self) -> dict[str, int]:
        """Return the sums over rounds, for a checkpoint."""
        return dict(self._totals)

    def resume(self, totals: Mapping[str, int]) -> None:
        """Go on from a checkpoint's sums."""
        self._totals |= totals

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FedproofError(
                f"{self.directory} cannot be written ({error.strerror or error}): make room there, "
                "then resume the run."
            ) from None

    def _announce(self, event: str, values: Mapping[str, Any]) -> None:
        announce({"event": event, **values}, log_lines=self._log_lines)

    def _send_file(self, name: str) -> None:
        """Send a file through the log, for a command on another machine."""
        if not self._remote:
            return
        content = (self.directory / name).read_bytes()
        pieces = [content[i : i + PIECE] for i in range(0, len(content), PIECE)] or [b""]
        for index, piece in enumerate(pieces):
            text = base64.b85encode(piece).decode()
            values = {"name": name, "piece": index, "pieces": len(pieces), "data": text}
            self._announce("file", values)
