"""Engine ``remote``: SuperNodes joined to a running SuperLink."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from pathlib import Path

from conf.schema import Settings
from server_app.engines.submit import submit
from server_app.engines.superlink import Link, quiet_environment
from server_app.evidence import files
from server_app.evidence.events import Event, Watcher
from server_app.evidence.tensorboard import Scalars
from task.atomic import atomic


def run_remote(
    settings: Settings,
    overrides: Sequence[str],
    app_dir: Path,
    run_dir: Path,
    watcher: Watcher,
) -> None:
    """Submit to a running SuperLink and mirror the run's evidence into `run_dir`.

    The ServerApp keeps the full run directory, checkpoints included, on its own machine;
    ``run.json`` says where.
    """
    assert settings.federation.superlink is not None
    link = Link(settings.federation.superlink, quiet_environment())
    mirror = Mirror(run_dir)

    def both(event: Event) -> None:
        mirror(event)
        watcher(event)

    submit(link, app_dir, shlex.join(overrides), (), both)


class Mirror:
    """Writes the events of a run elsewhere into a local run directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pieces: list[bytes] = []
        self._scalars = Scalars(directory / "tensorboard")

    def __call__(self, event: Event) -> None:
        """Take one event."""
        values = {key: value for key, value in event.items() if key != "event"}
        if event["event"] == "start":
            for name in (files.METRICS, files.CLIENTS):
                files.keep_rounds(self._directory / name, values["done"])
        elif event["event"] == "round":
            files.append_lines(self._directory / files.METRICS, [values])
            self._scalars.add(values)
        elif event["event"] == "clients":
            files.append_lines(self._directory / files.CLIENTS, values["rows"])
        elif event["event"] == "summary":
            files.write_json(self._directory / files.SUMMARY, values)
            self._scalars.close()
        elif event["event"] == "file":
            self._file(values)

    def _file(self, values: Event) -> None:
        """Collect the pieces of a file; the names are ours, whatever the server calls them."""
        if values["name"] not in (files.CONFIG, files.RUN, files.MODEL, files.BASELINES):
            return
        if values["piece"] == 0:
            self._pieces = []
        self._pieces.append(base64.b85decode(values["data"]))
        if values["piece"] + 1 == values["pieces"] == len(self._pieces):
            with atomic(self._directory / values["name"]) as temporary:
                temporary.write_bytes(b"".join(self._pieces))
