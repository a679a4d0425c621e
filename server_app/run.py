"""From a Flower context to a finished run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid

from conf.compose import compose, split_overrides
from conf.errors import FedproofError
from conf.schema import Engine, Settings
from server_app.attacking import require_attackable
from server_app.clustered import Clustered
from server_app.defending import looks_at_each
from server_app.evidence.events import announce, watched, watching
from server_app.evidence.progress import Progress
from server_app.evidence.recorder import Recorder, run_directory
from server_app.federation.exchange import ExchangeGrid
from server_app.federation.polling import PolledGrid
from server_app.rounds import RoundLoop
from server_app.samplers import sampler_of
from server_app.secure.protection import require_compatible
from server_app.strategies._robust import Robust
from task.client_update import update_of
from task.compression import compressors_of
from task.personalization import personalization_of
from task.registry import find
from task.source import load_task


def run_federation(grid: Grid, context: Context) -> None:
    """Run the federation that the run config's ``overrides`` describe.

    Raises
    ------
    FedproofError
        If it cannot start or finish; the sentence is announced first.
    """
    overrides = split_overrides(str(context.run_config.get("overrides", "")))
    try:
        settings = compose(overrides)
        module = find("server_app.strategies", settings.strategy.name)
        strategy = module.build(settings.strategy.options)
        if isinstance(strategy, Robust):
            strategy.inform(settings)
        require_attackable(settings)
        each = looks_at_each(settings)
        require_compatible(settings, module)
        update_of(settings)
        sampler_of(settings)
        compressors_of(settings)
        sum_suffices = getattr(module, "SUM_SUFFICES", False) and not each
        method = personalization_of(settings)
        if method is not None and method.clusters:
            several = [module.build(settings.strategy.options) for _ in range(method.clusters)]
            strategy, sum_suffices = Clustered(several, sum_suffices=sum_suffices), False
        directory = run_directory(settings, context.run_id)
        recorder = Recorder(directory, settings, overrides)
        with _narrated(settings, directory):
            task = load_task(settings)
            nodes = grid if isinstance(grid, ExchangeGrid) else PolledGrid(grid)
            loop = RoundLoop(settings, task, strategy, nodes, recorder, sum_suffices=sum_suffices)
            loop.run()
    except FedproofError as error:
        announce({"event": "error", "sentence": str(error)}, log_lines=True)
        raise


@contextmanager
def _narrated(settings: Settings, directory: Path) -> Iterator[None]:
    """Print progress to the log of a plain ``flwr run``, where no command draws it."""
    if watched() or settings.federation.engine is not Engine.local:
        yield
        return
    with Progress(directory) as progress, watching(progress):
        yield
