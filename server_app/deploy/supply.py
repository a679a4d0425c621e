"""What an installation consists of: its distributions, their licences, and a bill of materials."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "fedproof"
PERMISSIVE, WEAK, STRONG, CLOSED, UNKNOWN = (
    "permissive", "weak copyleft", "copyleft", "proprietary", "unknown",
)  # fmt: skip
_KINDS = (
    (STRONG, r"\bA?GPL|(?<!Lesser )General Public License|Affero"),
    (WEAK, r"LGPL|Lesser General|\bMPL|Mozilla|\bEPL|Eclipse|CDDL"),
    (CLOSED, r"proprietary"),
    (PERMISSIVE, r"MIT|BSD|Apache|\bISC|PSF|Python Software Foundation|Zlib|Unlicense|CC0|"
                 r"Public Domain|\bBSL-1|matplotlib|HPND|Boost"),
)  # fmt: skip
"""The first that matches counts; a choice (``OR``) counts as the mildest that it offers."""
_MILDEST = (PERMISSIVE, WEAK, CLOSED, UNKNOWN, STRONG)
_CLASSIFIER = "License :: "


@dataclass(frozen=True)
class Component:
    """One installed distribution.

    Attributes
    ----------
    name, version : str
        The name in its canonical form.
    licence : str
        As its metadata say, on one line; empty if they do not.
    kind : str
        ``permissive``, ``weak copyleft``, ``copyleft``, ``proprietary`` or ``unknown``.
    needs : tuple of str
        Names of the components that it requires.
    """

    name: str
    version: str
    licence: str
    kind: str
    needs: tuple[str, ...]


def components() -> list[Component]:
    """Return Fedproof and all that it needs here, extras as far as they are installed, by name."""
    root = distribution(ROOT)
    extras = {ROOT: frozenset(root.metadata.get_all("Provides-Extra") or [])}
    needs: dict[str, set[str]] = {}
    waiting = deque([ROOT])
    while waiting:
        name = waiting.popleft()
        needs[name] = set()
        for requirement in _required(distribution(name), extras[name]):
            needed = str(canonicalize_name(requirement.name))
            if not _is_installed(needed):
                continue
            needs[name].add(needed)
            before = extras.get(needed)
            extras[needed] = (before or frozenset()) | requirement.extras
            if extras[needed] != before:
                waiting.append(needed)
    return [_component(name, needs[name]) for name in sorted(needs)]


def _required(dist: Distribution, extras: Iterable[str]) -> Iterable[Requirement]:
    """Yield what a distribution requires here, with some of its extras."""
    for line in dist.requires or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ["", *extras]):
            yield requirement


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _component(name: str, needs: Iterable[str]) -> Component:
    dist = distribution(name)
    licence = licence_of(dist.metadata)
    return Component(name, dist.version, licence, kind_of(licence), tuple(sorted(needs)))


def licence_of(metadata: Any) -> str:
    """Return what a distribution's metadata say of its licence, on one line.

    An SPDX expression first (PEP 639), then classifiers, then free text, of which the first line.
    """
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = metadata.get_all("Classifier") or []
    named = [c.split(" :: ")[-1] for c in classifiers if c.startswith(_CLASSIFIER)]
    if named := [name for name in named if name != "DFSG approved"]:
        return " AND ".join(named)
    text = str(metadata.get("License") or "").strip()
    line = text.splitlines()[0].strip("= ") if text else ""
    return "" if line.upper() == "UNKNOWN" else line[:80]


def kind_of(licence: str) -> str:
    """Return what a licence asks of those who pass the software on, as far as its name tells."""
    choices = [_kind(choice) for choice in re.split(r"\sOR\s", licence)]
    return min(choices, key=_MILDEST.index)


def _kind(text: str) -> str:
    return next((kind for kind, told in _KINDS if re.search(told, text, re.I)), UNKNOWN)


def bill(parts: Iterable[Component]) -> dict[str, Any]:
    """Return a bill of materials as CycloneDX 1.6 (ECMA-424) says it, the same for the same parts.

    Parameters
    ----------
    parts : iterable of Component
        Fedproof among them.
    """
    listed = list(parts)
    text = "\n".join(f"{p.name}=={p.version}" for p in listed)
    serial = uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4)
    told = {part.name: _entry(part) for part in listed}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": {**told.pop(ROOT), "type": "application"}},
        "components": list(told.values()),
        "dependencies": [
            {"ref": _url(part), "dependsOn": [_url(p) for p in listed if p.name in part.needs]}
            for part in listed
        ],
    }


def _entry(part: Component) -> dict[str, Any]:
    licences = [{"license": {"name": part.licence}}] if part.licence else []
    return {
        "type": "library",
        "bom-ref": _url(part),
        "name": part.name,
        "version": part.version,
        "purl": _url(part),
        "licenses": licences,
    }


def _url(part: Component) -> str:
    return f"pkg:pypi/{part.name}@{part.version}"


def counted(parts: Iterable[Component]) -> Mapping[str, list[Component]]:
    """Return the components by what their licences ask."""
    kinds: dict[str, list[Component]] = {kind: [] for kind in _MILDEST}
    for part in parts:
        kinds[part.kind].append(part)
    return kinds


def write_bill(path: Path | None) -> None:
    """Write the bill of materials of this installation to a file, or print it."""
    text = json.dumps(bill(components()), indent=2) + "\n"
    if path is None:
        print(text, end="")
        return
    path.write_text(text, encoding="utf-8")
    print(path)


def show_licences() -> None:
    """Print all licences, those that ask for more than a notice first."""
    kinds = counted(components())
    for kind in reversed(_MILDEST):
        for part in kinds[kind]:
            print(f"{kind}\t{part.name} {part.version}\t{part.licence or '–'}")
    print(" · ".join(f"{len(found)} {kind}" for kind, found in kinds.items() if found))
