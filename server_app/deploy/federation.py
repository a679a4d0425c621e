"""The one short file from which a federation is set up."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from conf.errors import FedproofError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.(?!-)[A-Za-z0-9-]{1,63})*")


@dataclass(frozen=True)
class Federation:
    """Names and places.

    Attributes
    ----------
    name : str
        Of the federation; Flower's connection is called so, too.
    address : str
        Host name or IP address at which silos reach the SuperLink.
    silos : tuple of str
        Their names as clients.
    task : str
        What they learn together.
    port : int
        Of the SuperLink.
    """

    name: str
    address: str
    silos: tuple[str, ...]
    task: str
    port: int = 8000

    @property
    def endpoint(self) -> str:
        """Return ``HOST:PORT``, with an IPv6 address in brackets."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


def read_federation(path: Path) -> Federation:
    """Read the file.

    Raises
    ------
    FedproofError
        If it is absent, or something in it is missing or cannot be used.
    """
    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        raise FedproofError(f"{path} cannot be read: give a YAML file of the federation.") from None
    names = [one.name for one in fields(Federation)]
    if not isinstance(told, dict) or not {*names[:4]} <= set(told) <= set(names):
        raise FedproofError(f"{path} must say {', '.join(names[:4])}, and may say port; no more.")
    silos = told["silos"]
    good = isinstance(silos, list) and all(_is_name(silo) for silo in silos)
    if not good or not silos or len(set(silos)) < len(silos):
        raise FedproofError(
            f"{path}: silos must be a list of different names of letters, digits, - and _."
        )
    if not _is_name(told["name"]) or not _is_name(told["task"]):
        raise FedproofError(f"{path}: name and task must be words of letters, digits, - and _.")
    if not _is_host(told["address"]):
        raise FedproofError(f"{path}: address={told['address']!r} is no host name or IP address.")
    port = told.get("port", 8000)
    if type(port) is not int or not 0 < port < 65536:
        raise FedproofError(f"{path}: port={port!r} is no port.")
    return Federation(told["name"], told["address"], tuple(silos), told["task"], port)


def _is_name(text: Any) -> bool:
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def _is_host(text: Any) -> bool:
    if not isinstance(text, str):
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _HOST.fullmatch(text) is not None
    return True
