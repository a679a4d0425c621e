"""What one `fedproof` run does: train on an engine, evaluate a model, show a partition or plan."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from conf.compose import quote
from conf.errors import FedproofError
from conf.schema import Engine, Settings
from server_app.engines import forkserver
from server_app.evidence import files
from server_app.evidence.ownership import own_directory
from server_app.evidence.progress import Progress
from server_app.report.ending import reported
from server_app.tracking import tracked

APP_DIR = Path(__file__).resolve().parent.parent


def execute(settings: Settings, overrides: Sequence[str], run_dir: Path) -> None:
    """Do what the settings ask for, with `run_dir` as the place for everything written.

    Raises
    ------
    FedproofError
        If the run did not finish with a model.
    """
    own_directory(run_dir)
    if settings.partition.show:
        _show_partition(settings, run_dir)
    elif settings.privacy.options.get("plan"):
        from server_app.privacy.plan import show_plan

        show_plan(settings)
    elif settings.matrix.rows:
        from server_app.matrix import run_matrix

        run_matrix(settings, overrides, run_dir)
    elif settings.evaluate:
        from server_app.evaluate_model import evaluate_saved

        evaluate_saved(settings, Path(settings.evaluate), run_dir)
    else:
        _run(settings, overrides, run_dir)


def _run(settings: Settings, overrides: Sequence[str], run_dir: Path) -> None:
    """Train one run, or all seeds of a comparison, and leave a report in every directory."""
    if not settings.compare:
        _train_reported(settings, overrides, run_dir)
        return
    from server_app.comparison.show import compare

    with reported(run_dir):
        compare(settings, overrides, run_dir, _train_reported)


def _train_reported(settings: Settings, overrides: Sequence[str], run_dir: Path) -> None:
    with reported(run_dir):
        _train(settings, overrides, run_dir)


def _train(settings: Settings, overrides: Sequence[str], run_dir: Path) -> None:
    engine = settings.federation.engine
    told = list(overrides)
    if engine is not Engine.remote:
        # Other processes work in other directories.
        told.append(f"run_dir={quote(run_dir.resolve())}")
        if settings.task.path:
            told.append(f"task.path={quote(Path(settings.task.path).expanduser().resolve())}")
    (run_dir / files.SUMMARY).unlink(missing_ok=True)
    with (
        Progress(run_dir, brief=settings.compare) as progress,
        tracked(settings, run_dir, progress) as watcher,
    ):
        if engine is Engine.local:
            if settings.federation.workers != 1:
                forkserver.start()
            from server_app.engines.local import run_local
            from server_app.evidence.events import watching

            logging.getLogger("flwr").setLevel(logging.ERROR)
            with watching(watcher):
                run_local(settings, told, str(APP_DIR))
        elif engine is Engine.flower:
            from server_app.engines.flower import run_flower

            run_flower(settings, told, APP_DIR, watcher)
        else:
            from server_app.engines.remote import run_remote

            run_remote(settings, told, APP_DIR, run_dir, watcher)
    for name in (files.SUMMARY, files.MODEL):
        if not (run_dir / name).is_file():
            raise FedproofError(f"the run ended without {name} in {run_dir}.")


def _show_partition(settings: Settings, run_dir: Path) -> None:
    from task.label_plot import plot_labels
    from task.source import DataSource

    source = DataSource(settings)
    path = run_dir / "partition.png"
    plot_labels(source.pool, source.parts, path, f"{settings.task.name}: {settings.partition.name}")
    print(f"{len(source.parts)} clients: {path} and {path.with_suffix('.csv')}")
