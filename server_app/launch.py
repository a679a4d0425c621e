"""The `fedproof` command: a Hydra application that runs a federation.

Importing this must stay light, because tab completion, ``--help`` and refusals do.
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from conf.compose import CONFIG_DIR, CONFIG_NAME, compose, normalize, quote
from conf.errors import FedproofError
from conf.schema import Engine, Settings
from conf.seal import unsealed
from server_app.evidence.ownership import require_writable

REFUSED = 2
INTERRUPTED = 130
_LOOKS = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i",
          "--shell-completion", "-sc", "--package", "-p")  # fmt: skip
_TOOLS = {
    "ledger": ("server_app.privacy.show_ledger", "main"),
    "identity": ("server_app.secure.show_identity", "identity"),
    "report": ("server_app.report.show_report", "main"),
    "roster": ("server_app.secure.show_identity", "roster"),
    "audit-log": ("server_app.show_audit", "main"),
    "deploy": ("server_app.deploy.command", "main"),
    "supernode": ("client_app.warm.supernode", "main"),
}
"""First words of a command that is no run, and what does it."""
_failures: list[int] = []


def main() -> None:
    """Run the command; exits 0 only if every run finished and left a model."""
    try:
        _main()
    except KeyboardInterrupt:
        print("\nfedproof: interrupted.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _main() -> None:
    if sys.argv[1:2] and sys.argv[1] in _TOOLS:
        _use(sys.argv[1], sys.argv[2:])
        return
    try:
        sys.argv[1:] = prepare(sys.argv[1:])
    except FedproofError as error:
        _complain(error)
        sys.exit(REFUSED)
    # Being ended politely is Ctrl-C by other means: workers and SuperLink end, the run can resume.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    _application()
    sys.exit(max(_failures, default=0))


def _use(tool: str, arguments: Sequence[str]) -> None:
    module, function = _TOOLS[tool]
    try:
        getattr(import_module(module), function)(arguments)
    except FedproofError as error:
        _complain(error)
        sys.exit(1)


def prepare(arguments: Sequence[str]) -> list[str]:
    """Check all settings of all runs before anything starts; return Hydra's arguments.

    ``resume=`` and ``evaluate=`` bring the overrides of the run that they name.

    Raises
    ------
    FedproofError
        If some run's settings are wrong.
    """
    flags = [a for a in arguments if a.startswith("-")]
    plain = [normalize(a) for a in arguments if not a.startswith("-")]
    if any(flag.partition("=")[0] in _LOOKS for flag in flags):
        return [normalize(a) for a in arguments]
    plain = _recall(plain)
    multirun = bool({"-m", "--multirun"} & set(flags))
    for run in _sweep(plain) if multirun else [tuple(plain)]:
        told = tuple(o for o in run if not o.lstrip("+~").startswith(("hydra.", "hydra/")))
        _require_data(compose(told))
    require_writable(_place_of(plain, "hydra.sweep.dir" if multirun else "hydra.run.dir"))
    return [*flags, *plain]


def _place_of(overrides: Sequence[str], key: str) -> Path:
    """Return where Hydra will write: as the last override says, or below its usual folder."""
    given = [o.partition("=")[2].strip("\"'") for o in overrides if o.startswith(f"{key}=")]
    usual = "multirun" if key == "hydra.sweep.dir" else "outputs"
    place = given[-1] if given else usual
    # What Hydra interpolates into a place is below what stands before it.
    return Path(place.partition("${")[0] or usual).expanduser().absolute()


@cache
def run_name() -> str:
    """Return the name of this command's run: when it began, which no clock says twice."""
    now = datetime.now(UTC)
    return f"{now:%Y-%m-%d}/{now:%H-%M-%S}-{now:%f}Z"


OmegaConf.register_new_resolver("run_name", run_name, replace=True)


def _require_data(settings: Settings) -> None:
    """Refuse a run on this machine whose data are not there, nor are to be downloaded."""
    task = settings.task
    if settings.federation.engine is Engine.remote or not task.path or task.options.get("download"):
        return
    path = Path(task.path).expanduser()
    if not path.exists():
        raise FedproofError(f"task.path={path} does not exist: check the path of the data.")


def _recall(overrides: Sequence[str]) -> list[str]:
    """Put the overrides of the run that is resumed or evaluated before the given ones."""
    given = dict(o.partition("=")[::2] for o in overrides)
    for key in ("resume", "evaluate"):
        if key not in given or given[key] in ("", "null"):
            continue
        path = Path(given[key].strip("\"'")).expanduser().resolve()
        directory = path.parent if path.is_file() else path
        run = _read_run(directory, key)
        theirs = [
            o for o in run["overrides"] if o.partition("=")[0] not in {"run_dir", "resume", *given}
        ]
        rest = [o for o in overrides if not o.startswith(f"{key}=")]
        place = directory
        if key == "resume":
            rest.append(f"hydra.run.dir={quote(directory)}")
            if ("federation" in given and given["federation"] == "remote") or (
                "federation=remote" in theirs
            ):
                place = Path(run["server_directory"])
        else:
            place = path
        return [*theirs, *rest, f"{key}={quote(place)}"]
    return list(overrides)


def _read_run(directory: Path, key: str) -> dict[str, Any]:
    path = directory / "run.json"
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        texts = [run["server_directory"], *run["overrides"]]
        assert all(isinstance(text, str) for text in texts)
    except (OSError, ValueError, TypeError, KeyError, AssertionError, RecursionError):
        raise FedproofError(
            f"{key}={directory} is not a run directory of fedproof: it has no readable run.json."
        ) from None
    return unsealed(run, str(path))


def _sweep(overrides: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the overrides of each run of a multirun."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except Exception:
        return [tuple(overrides)]
    choices = []
    for override in parsed:
        if override.is_sweep_override():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([str(override.input_line)])
    return list(itertools.product(*choices))


def _complain(error: BaseException) -> None:
    print(f"fedproof: {error}", file=sys.stderr)


@hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=CONFIG_NAME)
def _application(_: DictConfig) -> None:
    from server_app.command import execute

    runtime = HydraConfig.get()
    overrides = [normalize(o) for o in runtime.overrides.task]
    directory = Path(runtime.runtime.output_dir)
    try:
        execute(compose(tuple(overrides)), overrides, directory)
    except FedproofError as error:
        _complain(error)
        _failures.append(1)
    except KeyboardInterrupt:
        resume = f" Go on with: fedproof resume={directory}" if _resumable(directory) else ""
        print(f"\nfedproof: interrupted.{resume}", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _resumable(directory: Path) -> bool:
    return (directory / "checkpoint.safetensors").is_file()
