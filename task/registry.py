"""Find a plug-in by the name that users type: a module of one package.

A name never reaches `importlib` unless such a file exists, so a name that comes over the wire
cannot make a client import or instantiate anything else.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from types import ModuleType

from conf.errors import FedproofError


@cache
def names(package: str) -> tuple[str, ...]:
    """Return the names of the modules in `package`, sorted; those with ``_`` in front are not."""
    path = import_module(package).__path__
    return tuple(sorted(m.name for m in pkgutil.iter_modules(path) if m.name[0] != "_"))


def find(package: str, name: str) -> ModuleType:
    """Import the module `name` of `package`.

    Raises
    ------
    FedproofError
        If there is no such module.
    """
    if name not in names(package):
        kind = package.rpartition(".")[2]
        raise FedproofError(f"no '{name}' in {kind}: choose one of {', '.join(names(package))}.")
    return import_module(f"{package}.{name}")
