"""A network of its own for each silo, where this machine lets us; else all share the loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Networks:
    """Where a federation's machines are.

    Attributes
    ----------
    server : str
        The SuperLink's address.
    within : dict of str to list of str
        By silo, what a command starts with that is to run in its network.
    """

    server: str = "127.0.0.1"
    within: dict[str, list[str]] = field(default_factory=dict)

    @property
    def apart(self) -> bool:
        """Whether silos have addresses of their own."""
        return bool(self.within)


@contextmanager
def networks(silos: Sequence[str]) -> Iterator[Networks]:
    """Give each silo a network namespace that reaches the server's bridge and nothing else.

    Namespaces and the bridge are named by this process, and gone after the block.
    """
    bridge, prefix = f"fp{os.getpid() % 10**6}", f"10.{77 + os.getpid() % 100}.0"
    names = {silo: f"{bridge}-{i}" for i, silo in enumerate(silos, 2)}
    try:
        yield _made(bridge, prefix, names)
    finally:
        for name in names.values():
            _ip("netns", "del", name, check=False)
        _ip("link", "del", bridge, check=False)


def _made(bridge: str, prefix: str, names: dict[str, str]) -> Networks:
    """Return networks that were made; the loopback's if we must not make any."""
    if shutil.which("ip") is None:
        return Networks()
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{prefix}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for i, name in enumerate(names.values(), 2):
            outer = f"{bridge}v{i}"
            _ip("netns", "add", name)
            _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", outer, "master", bridge, "up")
            _ip("-n", name, "addr", "add", f"{prefix}.{i}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
    except (subprocess.CalledProcessError, OSError):
        return Networks()
    within = {silo: ["ip", "netns", "exec", name] for silo, name in names.items()}
    return Networks(f"{prefix}.1", within)


def _ip(*words: str, check: bool = True) -> None:
    if shutil.which("ip") is not None:
        subprocess.run(["ip", *words], check=check, capture_output=True, timeout=20)
