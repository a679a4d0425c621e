"""From Hydra overrides to typed, checked `Settings`."""

from __future__ import annotations

import copy
import difflib
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, get_type_hints

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from conf.checks import check
from conf.errors import FedproofError
from conf.overrides import is_choice, require_plain
from conf.schema import Settings

CONFIG_DIR = Path(__file__).resolve().parent
CONFIG_NAME = "config"


@lru_cache(maxsize=256)
def compose(overrides: tuple[str, ...]) -> Settings:
    """Compose and check the settings for some Hydra overrides.

    Server and clients call this with the run's overrides and so arrive at equal settings.

    Raises
    ------
    FedproofError
        If a key is unknown, a value has the wrong type, or settings contradict each other.
    """
    return to_settings(compose_config(overrides))


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose the untyped configuration; Hydra's errors become one sentence."""
    plain = [normalize(override) for override in overrides]
    require_plain(plain)
    try:
        config = _changed(plain)
        return copy.deepcopy(_composed(tuple(plain))) if config is None else config
    except MissingConfigException as error:
        raise FedproofError(_missing_sentence(error)) from None
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
        raise FedproofError(_hydra_sentence(str(error))) from None


def _changed(overrides: Sequence[str]) -> DictConfig | None:
    """Change values of a configuration whose choices were composed before, which takes Hydra long.

    None if anything is unlike the change of a value that is there: then Hydra has the say.
    """
    told = [override for override in overrides if not is_choice(override)]
    values = OverridesParser.create().parse_overrides(told)
    if any(v.type is not OverrideType.CHANGE or v.package or v.is_sweep_override() for v in values):
        return None
    config = copy.deepcopy(_composed(tuple(filter(is_choice, overrides))))
    try:
        for value in values:
            OmegaConf.update(config, value.key_or_group, value.value(), merge=True)
    except OmegaConfBaseException:
        return None
    return config


@lru_cache(maxsize=256)
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    with _own_hydra():
        return hydra_compose(CONFIG_NAME, list(overrides))


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Compose beside a Hydra application that may be running in this process."""
    outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
            yield
    finally:
        # Hydra has put another instance in place by now.
        GlobalHydra.instance().hydra = outer


def normalize(override: str) -> str:
    """Take ``+experiment=x`` for ``experiment=x``: the group is in the defaults list already.

    And ``task.categories.COLUMN=`` for ``++task.categories.COLUMN=``: no file can declare the
    columns of everybody's tables.
    """
    if override.startswith(("task.categories.", "task.categories=")):
        return f"++{override}"
    return override.removeprefix("+") if override.startswith("+experiment=") else override


def to_settings(config: DictConfig) -> Settings:
    """Turn a composed configuration into checked `Settings`."""
    try:
        OmegaConf.resolve(config)
        plain = OmegaConf.to_container(config, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise FedproofError(_hydra_sentence(str(error))) from None
    assert isinstance(plain, dict)
    nested = _nest({str(key): value for key, value in plain.items()})
    try:
        settings = OmegaConf.to_object(OmegaConf.merge(_schema(), nested))
    except OmegaConfBaseException as error:
        if isinstance(error, ConfigKeyError):
            raise FedproofError(_unknown_sentence(str(error.full_key))) from None
        reason = str(error).splitlines()[0].rstrip(".")
        raise FedproofError(f"{error.full_key or 'settings'}: {reason}.") from None
    assert isinstance(settings, Settings)
    check(settings)
    return settings


@cache
def _schema() -> DictConfig:
    return OmegaConf.structured(Settings)  # type: ignore[no-any-return]


def _nest(values: dict[str, Any]) -> dict[str, Any]:
    """Move what an open group declares beyond its typed fields into its ``options``."""
    nested = dict(values)
    for key, kind in get_type_hints(Settings).items():
        typed = get_type_hints(kind) if is_dataclass(kind) else {}
        if "options" in typed and isinstance(values.get(key), dict):
            group = values[key]
            defaults = declared(key, group.get("name"))
            options = {
                name: _like(value, defaults, f"{key}.{name}")
                for name, value in group.items()
                if name not in typed
            }
            nested[key] = {n: v for n, v in group.items() if n in typed} | {"options": options}
    return nested


def declared(group: str, name: Any) -> dict[str, Any]:
    """Return the values that the YAML file of a group's choice declares."""
    path = CONFIG_DIR / group / f"{name}.yaml"
    if not path.is_file():
        return {}
    declared = copy.deepcopy(_read(path))
    inner = declared.get(group, declared)
    return {str(key): value for key, value in inner.items()}


@cache
def _read(path: Path) -> dict[Any, Any]:
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    return content


def _like(value: Any, declared: dict[str, Any], where: str) -> Any:
    """Return `value` with the type of the declared default, or refuse it."""
    name = where.partition(".")[2]
    if name not in declared:
        raise FedproofError(_unknown_sentence(where))
    default = declared[name]
    if default is None or value is None or type(value) is type(default):
        return value
    if isinstance(default, float) and type(value) is int:
        return float(value)
    raise FedproofError(
        f"{where}: expected {type(default).__name__} like {default!r}, got {value!r}."
    )


def _missing_sentence(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file or "").rpartition("/")
    options = ", ".join(error.options or [])
    return f"no {group or 'configuration'} named '{name}': choose one of {options}."


def _hydra_sentence(text: str) -> str:
    """Boil an error of Hydra or OmegaConf down to what, where and how to mend."""
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(
        r"[Kk]ey '([^']+)' is not in struct", text
    )
    if unknown:
        return _unknown_sentence(unknown[1])
    missing = re.search(r"Missing mandatory value: (\S+)", text)
    if missing:
        return f"{missing[1]} must be given: add {missing[1]}=... to the command."
    return "cannot read the settings: " + " ".join(text.split()[:40])


def _unknown_sentence(key: str) -> str:
    # Another choice of its group may have the key.
    others = [known for known in _all_keys() if known != key]
    close = difflib.get_close_matches(key, others, 1)
    mend = f"did you mean '{close[0]}'?" if close else "`fedproof --cfg job` lists them all."
    return f"there is no setting '{key}': {mend}"


@cache
def _all_keys() -> tuple[str, ...]:
    """List every dotted key that some choice of groups declares."""
    found = {path.name for path in CONFIG_DIR.iterdir() if path.is_dir() and path.name[0] != "_"}
    for path in CONFIG_DIR.rglob("*.yaml"):
        group = "" if path.parent == CONFIG_DIR else f"{path.parent.name}."
        text = path.read_text(encoding="utf-8")
        prefix = "" if "@package _global_" in text else group
        found.update(_flatten(OmegaConf.to_container(OmegaConf.load(path)), prefix))
    return tuple(sorted(found))


def _flatten(node: Any, prefix: str) -> set[str]:
    keys = set()
    for key, value in node.items() if isinstance(node, dict) else ():
        if key != "defaults":
            keys |= {f"{prefix}{key}"} | _flatten(value, f"{prefix}{key}.")
    return keys


def split_overrides(text: str) -> tuple[str, ...]:
    """Split the run config's ``overrides`` as a shell would.

    Raises
    ------
    FedproofError
        If a quotation is not closed.
    """
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise FedproofError(f"overrides: {error} in {text!r}: close it.") from None


def quote(value: str | Path) -> str:
    """Quote a value for Hydra's grammar."""
    return json.dumps(str(value), ensure_ascii=False)
