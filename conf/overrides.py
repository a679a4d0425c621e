"""Overrides come from whoever submits a run: they are values, and reach for nothing.

Hydra would take ``${oc.env:NAME}`` for an environment variable of the machine that composes, a
choice such as ``task=../../x`` for a YAML file anywhere on its disk, and ``hydra.searchpath`` for
more places to look in; what it finds may come back in the sentence of an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from conf.errors import FedproofError

_CHOICE = re.compile(r"[\w.,\-]*")
_GROUPS = frozenset(
    path.name for path in Path(__file__).resolve().parent.iterdir() if path.is_dir()
)
_LONGEST = 100_000
"""Characters of all overrides of a run."""


def require_plain(overrides: Iterable[str]) -> None:
    """Refuse overrides that look anywhere else than at the values which they hold.

    Raises
    ------
    FedproofError
        Then; the sentence quotes the override only, never what it would find.
    """
    told = list(overrides)
    if sum(map(len, told)) > _LONGEST:
        raise FedproofError(f"the overrides are longer than {_LONGEST} characters: shorten them.")
    for override in told:
        key, value = _key(override), override.partition("=")[2]
        if "${" in override:
            raise FedproofError(f"{override}: give the value itself, '${{...}}' is not looked up.")
        if key.startswith("hydra"):
            raise FedproofError(f"{override}: Hydra's own settings are no settings of a run.")
        if "/" in key or (key in _GROUPS and not _CHOICE.fullmatch(value.strip("\"' "))):
            raise FedproofError(f"{override}: a choice is a name, not a path.")


def is_choice(override: str) -> bool:
    """Return whether an override chooses a file of a group, such as ``strategy=fedprox``."""
    return _key(override) in _GROUPS


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].partition("@")[0].strip()
