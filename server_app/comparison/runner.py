"""``fedproof compare=true``: the same federation under several seeds, each with its baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from conf.compose import compose, quote
from conf.schema import Engine, Settings
from server_app import checkpoint
from server_app.evidence import files

SEEDS = 5
UNPROTECTED = "-unprotected"
"""Ends the directory's name of a run that shows what privacy costs."""
Train = Callable[[Settings, Sequence[str], Path], None]
"""Trains one run into a directory."""


@dataclass(frozen=True)
class Part:
    """One run of a comparison."""

    directory: Path
    overrides: tuple[str, ...]

    @property
    def done(self) -> bool:
        """Whether it ended with all that the comparison needs."""
        return (self.directory / files.SUMMARY).is_file()


def run_comparison(
    settings: Settings, overrides: Sequence[str], run_dir: Path, train: Train
) -> None:
    """Run what is not done yet of a comparison, one seed after the other.

    Parameters
    ----------
    settings : Settings
        Of the first seed.
    overrides : sequence of str
        What they were composed from.
    run_dir : Path
        Holds a directory for each seed.
    train : callable
        Trains one run.
    """
    given = [o for o in overrides if not _is(o, "resume")]
    run_dir.mkdir(parents=True, exist_ok=True)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    # What resuming, and the report, go by.
    files.write_json(
        run_dir / files.RUN,
        {"overrides": given, "started": started, "server_directory": str(run_dir.resolve()),
         "versions": files.versions()},
    )  # fmt: skip
    parts = list(parts_of(settings, given, run_dir))
    for number, part in enumerate(parts, 1):
        print(f"{part.directory.name}: run {number} of {len(parts)}", flush=True)
        if not part.done:
            part.directory.mkdir(exist_ok=True)
            told = list(part.overrides)
            if (part.directory / checkpoint.CHECKPOINT).is_file():
                told.append(f"resume={quote(part.directory.resolve())}")
            train(compose(tuple(told)), told, part.directory)


def parts_of(settings: Settings, overrides: Sequence[str], run_dir: Path) -> Iterator[Part]:
    """Yield the runs of a comparison: each seed, and where that is wanted without privacy."""
    kept = [o for o in overrides if not (_is(o, "seed") or _is(o, "seeds"))]
    for seed in range(settings.seed, settings.seed + (settings.seeds or SEEDS)):
        told = (*kept, f"seed={seed}")
        yield Part(run_dir / f"seed-{seed}", told)
        if _unprotected(settings):
            bare = tuple(o for o in told if not _is(o, "privacy", "compare"))
            yield Part(run_dir / f"seed-{seed}{UNPROTECTED}", (*bare, "privacy=none"))


def _unprotected(settings: Settings) -> bool:
    wanted = settings.baselines.unprotected
    private = settings.privacy.name != "none"
    return private and wanted is not False and settings.federation.engine is not Engine.remote


def _is(override: str, *keys: str) -> bool:
    """Tell whether an override is of one of these settings or groups."""
    name = override.lstrip("+~").partition("=")[0].partition("@")[0]
    return name in keys or name.partition(".")[0] in keys
