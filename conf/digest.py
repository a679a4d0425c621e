"""Digests that let server and clients check that they run the same thing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from conf.schema import Settings

PACKAGES = ("client_app", "conf", "server_app", "task")
_SUFFIXES = (".py", ".yaml", ".jsonl")
_NOT_LEARNING = (
    "resume", "evaluate", "run_dir", "checkpoint_every", "rounds", "stop", "select", "profile",
    "matrix", "compare", "seeds", "baselines", "link", "tracking",
)  # fmt: skip
_ELSEWHERE = ("resume", "evaluate", "run_dir", "checkpoint_every", "matrix", "link", "tracking")
_NOT_LEARNING_FEDERATION = (
    "engine", "workers", "nodes", "wait", "superlink", "port", "ray", "timeout", "retries",
    "min_clients", "vectorize",
)  # fmt: skip


def plain(settings: Settings) -> dict[str, Any]:
    """Return the settings as JSON-able values, nested as in the YAML files."""

    def simple(value: Any) -> Any:
        if isinstance(value, dict):
            flat = {key: simple(item) for key, item in value.items() if key != "options"}
            return flat | {key: simple(item) for key, item in value.get("options", {}).items()}
        return value.value if isinstance(value, Enum) else value

    result = simple(asdict(settings))
    assert isinstance(result, dict)
    return result


def config_digest(settings: Settings) -> str:
    """Hash what determines the learning: not where it runs, how long, or what is written where.

    So a run may be resumed on another engine or with more rounds, but not with another model.
    """
    values = _without(settings, _NOT_LEARNING)
    values["train"].pop("device")
    return _hashed(values)


def settings_digest(settings: Settings) -> str:
    """Hash all that a silo's operator may want to approve: also how long, and what is compared.

    Only where the ServerApp runs and what it writes where is left out.
    """
    return _hashed(_without(settings, _ELSEWHERE))


def _without(settings: Settings, keys: Iterable[str]) -> dict[str, Any]:
    """Return all settings but some, and but where the run and its data are."""
    values = plain(settings)
    for key in keys:
        values.pop(key)
    for key in _NOT_LEARNING_FEDERATION:
        values["federation"].pop(key)
    # Each SuperNode has its own data, wherever it lies.
    values["task"].pop("path")
    return values


def _hashed(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


@cache
def code_digest() -> str:
    """Hash the source, settings and embedded data of the application."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in _SUFFIXES and not path.name.startswith("test_"):
                name = path.relative_to(root).as_posix()
                digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
